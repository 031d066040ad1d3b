//! HTTP in front of the store, driven by the registry: authentication, authorization, admission, watch, discovery, OpenAPI, streaming subresources.
