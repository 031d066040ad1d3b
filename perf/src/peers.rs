//! What Beeline is measured against: the rules that kube-proxy writes for the same services, made by generators of our
//! own, and the figures of proxies that do not run here.

pub(crate) mod iptables;
pub(crate) mod load;
pub(crate) mod nftables;
pub(crate) mod published;
pub(crate) mod services;
