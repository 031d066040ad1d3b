//! The paths of the documents, from the registry's rows: which operations there are, on what kind, with which parameters.

use serde_json::{Map, Value, json};

use super::{root, schemas};
use crate::registry::{RESOURCES, Resource, Subresource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// A query parameter: name, JSON type, what it does.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = ("dryRun", "string", "All: go through all stages, persist nothing.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "Name of the actor that makes these changes.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
);
const FORCE: Parameter =
    ("force", "boolean", "Take over fields that other managers own; server-side apply only.");
const PRETTY: Parameter = ("pretty", "string", "If 'true', the output is pretty printed.");
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, PRETTY];
const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE, PRETTY];
const READ: &[Parameter] = &[PRETTY];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0 means at once."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
    PRETTY,
];
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Ask for BOOKMARK events in a watch."),
    ("continue", "string", "The token of an earlier reply, to get the page that follows it."),
    ("fieldSelector", "string", "Only objects whose fields match."),
    ("labelSelector", "string", "Only objects whose labels match."),
    ("limit", "integer", "Most objects in one reply."),
    ("resourceVersion", "string", "How fresh the answer must be, or from where to watch."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: NotOlderThan or Exact."),
    ("sendInitialEvents", "boolean", "Begin a watch with the objects that there are."),
    ("timeoutSeconds", "integer", "End the request after so many seconds."),
    ("watch", "boolean", "Follow changes instead of listing."),
    PRETTY,
];

/// What an operation does: upstream's word, HTTP method, verb in the registry, its parameters.
struct Action {
    name: &'static str,
    method: &'static str,
    verb: &'static str,
    parameters: &'static [Parameter],
    body: Body,
    reply: Reply,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Object,
    Patch,
    DeleteOptions,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    List,
    Object,
    Status,
}

const GET_OBJECT: Action = Action {
    name: "get",
    method: "get",
    verb: "get",
    parameters: READ,
    body: Body::None,
    reply: Reply::Object,
};
const PUT_OBJECT: Action = Action {
    name: "put",
    method: "put",
    verb: "update",
    parameters: WRITE,
    body: Body::Object,
    reply: Reply::Object,
};
const PATCH_OBJECT: Action = Action {
    name: "patch",
    method: "patch",
    verb: "patch",
    parameters: PATCH,
    body: Body::Patch,
    reply: Reply::Object,
};
const POST_OBJECT: Action = Action {
    name: "post",
    method: "post",
    verb: "create",
    parameters: WRITE,
    body: Body::Object,
    reply: Reply::Object,
};

const ON_COLLECTION: [Action; 3] = [
    Action {
        name: "list",
        method: "get",
        verb: "list",
        parameters: LIST,
        body: Body::None,
        reply: Reply::List,
    },
    POST_OBJECT,
    Action {
        name: "deletecollection",
        method: "delete",
        verb: "deletecollection",
        parameters: LIST,
        body: Body::DeleteOptions,
        reply: Reply::Status,
    },
];
const ON_OBJECT: [Action; 4] = [
    GET_OBJECT,
    PUT_OBJECT,
    PATCH_OBJECT,
    Action {
        name: "delete",
        method: "delete",
        verb: "delete",
        parameters: DELETE,
        body: Body::DeleteOptions,
        reply: Reply::Status,
    },
];
const ON_SUBRESOURCE: [Action; 4] = [GET_OBJECT, PUT_OBJECT, PATCH_OBJECT, POST_OBJECT];

/// What a path stands for.
#[derive(Clone, Copy)]
struct Endpoint<'a> {
    row: &'a Resource,
    sub: Option<&'a Subresource>,
    /// The path names a namespace.
    namespace: bool,
}

impl Endpoint<'_> {
    /// Group, version and kind that operations take and give.
    fn kind(&self) -> Value {
        let (group, version, kind) = match self.sub {
            Some(sub) => (sub.group, sub.version, sub.kind),
            None => (self.row.group, self.row.version, self.row.kind),
        };
        json!({ "group": group, "kind": kind, "version": version })
    }

    fn type_name(&self) -> &'static str {
        self.sub.map_or(self.row.type_name, |sub| sub.type_name)
    }

    fn verbs(&self) -> &'static [&'static str] {
        self.sub.map_or(self.row.verbs, |sub| sub.verbs)
    }
}

/// Paths of a group version for its v3 document.
pub(super) fn v3(group: &str, version: &str) -> Map<String, Value> {
    let mut out = Map::new();
    let base = format!("/{}", root(group, version));
    out.insert(format!("{base}/"), json!({ "get": discovery_operation(group, version) }));
    for row in RESOURCES.iter().filter(|row| row.group == group && row.version == version) {
        resource_paths(row, &base, &mut out);
    }
    out
}

fn resource_paths(row: &Resource, base: &str, out: &mut Map<String, Value>) {
    let namespace = row.namespaced;
    let everywhere = format!("{base}/{}", row.plural);
    let collection = if namespace {
        format!("{base}/namespaces/{{namespace}}/{}", row.plural)
    } else {
        everywhere.clone()
    };
    let object = format!("{collection}/{{name}}");
    let endpoint = Endpoint { row, sub: None, namespace };
    put(out, &collection, &path_parameters(namespace, false), operations(&ON_COLLECTION, endpoint));
    put(out, &object, &path_parameters(namespace, true), operations(&ON_OBJECT, endpoint));
    for sub in row.subresources.iter().filter(|sub| !sub.type_name.is_empty()) {
        let operations = operations(&ON_SUBRESOURCE, Endpoint { sub: Some(sub), ..endpoint });
        put(out, &format!("{object}/{}", sub.name), &path_parameters(namespace, true), operations);
    }
    if namespace {
        let list = operations(&ON_COLLECTION[..1], Endpoint { namespace: false, ..endpoint });
        put(out, &everywhere, &[], list);
    }
}

fn put(out: &mut Map<String, Value>, path: &str, parameters: &[Value], operations: Map<String, Value>) {
    if operations.is_empty() {
        return;
    }
    let mut item = operations;
    if !parameters.is_empty() {
        item.insert("parameters".into(), parameters.into());
    }
    out.insert(path.to_owned(), item.into());
}

fn path_parameters(namespace: bool, name: bool) -> Vec<Value> {
    let parameter = |name: &str, description: &str| json!({ "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string", "uniqueItems": true } });
    let mut out = Vec::new();
    if name {
        out.push(parameter("name", "name of the object"));
    }
    if namespace {
        out.push(parameter("namespace", "object name and auth scope, such as for teams and projects"));
    }
    out
}

fn operations(actions: &[Action], endpoint: Endpoint<'_>) -> Map<String, Value> {
    let offered = actions.iter().filter(|action| endpoint.verbs().contains(&action.verb));
    offered.map(|action| (action.method.to_owned(), operation(action, endpoint))).collect()
}

fn operation(action: &Action, endpoint: Endpoint<'_>) -> Value {
    let row = endpoint.row;
    let verb = if action.verb == "update" { "replace" } else { action.verb };
    let tag = tag(row.group, row.version);
    let scope = if endpoint.namespace { "Namespaced" } else { "" };
    let all = if !endpoint.namespace && row.namespaced { "ForAllNamespaces" } else { "" };
    let (subject, sub) = match endpoint.sub {
        Some(sub) => (format!("{}/{}", row.plural, sub.name), pascal(sub.name)),
        None => (row.plural.to_owned(), String::new()),
    };
    let mut out = json!({
        "tags": [tag],
        "description": format!("{verb} {subject}"),
        "operationId": format!("{verb}{}{scope}{}{sub}{all}", pascal(&tag), row.kind),
        "parameters": action.parameters.iter().map(query_parameter).collect::<Vec<_>>(),
        "responses": responses(action, endpoint),
        "x-kubernetes-action": action.name,
        "x-kubernetes-group-version-kind": endpoint.kind(),
    });
    if let Some(body) = request_body(action.body, endpoint.type_name()) {
        out["requestBody"] = body;
    }
    out
}

fn query_parameter((name, kind, description): &Parameter) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind, "uniqueItems": true } })
}

fn request_body(body: Body, type_name: &str) -> Option<Value> {
    let any = |name: &str| json!({ "*/*": { "schema": schemas::reference(name) } });
    match body {
        Body::None => None,
        Body::Object => Some(json!({ "required": true, "content": any(type_name) })),
        Body::DeleteOptions => Some(json!({ "content": any(&format!("{META}.DeleteOptions")) })),
        Body::Patch => {
            let free = |media: &&str| ((*media).to_owned(), json!({ "schema": { "type": "object" } }));
            let content: Map<String, Value> = crate::patch::Kind::ACCEPTED.iter().map(free).collect();
            Some(json!({ "required": true, "content": content }))
        }
    }
}

fn responses(action: &Action, endpoint: Endpoint<'_>) -> Value {
    if endpoint.sub.is_some_and(|sub| sub.name == "log") {
        let text = json!({ "text/plain": { "schema": { "type": "string" } } });
        return json!({ "200": { "description": "OK", "content": text } });
    }
    let schema = match action.reply {
        Reply::List => schemas::reference(&schemas::list_name(endpoint.row)),
        Reply::Status => schemas::reference(&format!("{META}.Status")),
        Reply::Object => schemas::reference(endpoint.type_name()),
    };
    let content =
        json!({ "application/json": { "schema": schema }, "application/yaml": { "schema": schema } });
    let mut out = json!({ "200": { "description": "OK", "content": content } });
    let also = match action.name {
        "post" | "put" | "patch" => Some(("201", "Created")),
        "delete" => Some(("202", "Accepted")),
        _ => None,
    };
    if let Some((code, text)) = also {
        out[code] = json!({ "description": text, "content": content });
    }
    out["401"] = json!({ "description": "Unauthorized" });
    out
}

fn discovery_operation(group: &str, version: &str) -> Value {
    let tag = tag(group, version);
    let schema = schemas::reference(&format!("{META}.APIResourceList"));
    json!({
        "tags": [tag],
        "description": "get available resources",
        "operationId": format!("get{}APIResources", pascal(&tag)),
        "responses": {
            "200": { "description": "OK", "content": { "application/json": { "schema": schema } } },
            "401": { "description": "Unauthorized" },
        },
    })
}

/// `core_v1`, `apps_v1`, `rbacAuthorization_v1`: groups without `.k8s.io`, camel-cased.
fn tag(group: &str, version: &str) -> String {
    if group.is_empty() {
        return format!("core_{version}");
    }
    let mut parts = group.trim_end_matches(".k8s.io").split('.');
    let first = parts.next().unwrap_or_default();
    format!("{first}{}_{version}", parts.map(pascal).collect::<String>())
}

/// `core_v1` to `CoreV1`.
fn pascal(text: &str) -> String {
    text.split('_')
        .flat_map(|word| {
            let mut chars = word.chars();
            chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars)
        })
        .collect()
}

/// Paths of a group version for the v2 document: the same operations, with body parameters and bare types.
pub(super) fn v2(group: &str, version: &str) -> Map<String, Value> {
    let mut out = v3(group, version);
    for item in out.values_mut().filter_map(Value::as_object_mut) {
        for (key, value) in item.iter_mut() {
            if key == "parameters" {
                value.as_array_mut().into_iter().flatten().for_each(flatten_parameter);
            } else if let Some(operation) = value.as_object_mut() {
                v2_operation(operation);
            }
        }
    }
    out
}

fn flatten_parameter(parameter: &mut Value) {
    if let Some(map) = parameter.as_object_mut()
        && let Some(Value::Object(schema)) = map.remove("schema")
    {
        map.extend(schema);
    }
}

fn v2_operation(operation: &mut Map<String, Value>) {
    let body = operation.remove("requestBody");
    if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
        parameters.iter_mut().for_each(flatten_parameter);
        if let Some(body) = body {
            let required = body.get("required").cloned().unwrap_or(false.into());
            let schema = first_schema(body.get("content"));
            parameters.push(json!({ "name": "body", "in": "body", "required": required, "schema": schema }));
        }
    }
    for response in
        operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
    {
        let Some(response) = response.as_object_mut() else { continue };
        if let Some(content) = response.remove("content") {
            response.insert("schema".into(), first_schema(Some(&content)));
        }
    }
    operation.insert("schemes".into(), json!(["https"]));
    operation.insert("consumes".into(), json!(["*/*"]));
    operation.insert("produces".into(), json!(["application/json", "application/yaml"]));
}

/// The schema of the first media type, with v2's references.
fn first_schema(content: Option<&Value>) -> Value {
    let schema =
        content.and_then(Value::as_object).and_then(|c| c.values().next()).and_then(|c| c.get("schema"));
    let mut schema = schema.cloned().unwrap_or_else(|| json!({ "type": "object" }));
    if let Some(Value::String(target)) = schema.get_mut("$ref") {
        *target = target.replace("#/components/schemas/", "#/definitions/");
    }
    schema
}
