//! The command line: roles and their settings. Parsing alone; what they mean is in `main` and the roles.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The control plane of a Beeline cluster.
#[derive(Debug, Parser)]
#[command(name = "beeline-control", version, about)]
pub struct Command {
    /// What to run.
    #[command(subcommand)]
    pub role: Role,
}

/// The roles of the control plane.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// All roles in one process, and a local etcd if none is given.
    All(ServerArgs),
    /// The API server, and a local etcd if none is given.
    Apiserver(ServerArgs),
    /// The scheduler, as a client of an API server.
    Scheduler(ClientArgs),
    /// The controllers, as a client of an API server.
    Controllers(ControllersArgs),
    /// Writes the certificates and the kubeconfig of a node, signed by the cluster's authority.
    IssueNode(IssueNodeArgs),
}

/// Settings of an API server.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Folder for certificates and the local etcd's data.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Address and port to serve on; sockets inherited by the systemd protocol (LISTEN_FDS) are served too.
    #[arg(long, default_value = "0.0.0.0:6443")]
    pub bind: SocketAddr,
    /// Address at which nodes and pods reach this server; the bound address if that is a particular one, else 127.0.0.1.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Client URLs of an etcd cluster; without them a local etcd is started and supervised.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The program to start as local etcd.
    #[arg(long, default_value = "etcd")]
    pub etcd_binary: PathBuf,
    /// Ranges of cluster IPs, one a family, the primary family first.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/16,fd00:10:96::/112")]
    pub service_cluster_ip_range: Vec<String>,
    /// Ranges of pod addresses, one a family; nodes get their shares from them.
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16,fd00:10:244::/56")]
    pub cluster_cidr: Vec<String>,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// How long events are kept, in seconds.
    #[arg(long, default_value_t = 3600)]
    pub event_ttl_seconds: u64,
    /// Where the administrator's kubeconfig is written once the server serves; `admin.kubeconfig` in the data folder if not given.
    #[arg(long)]
    pub admin_kubeconfig: Option<PathBuf>,
    /// URL of the server in that kubeconfig; made of the advertised address and port if not given.
    #[arg(long)]
    pub admin_server: Option<String>,
}

/// Settings of a role that is a client.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// How to reach the API server, and as whom.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Work only while holding the role's Lease.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
}

/// Settings of the controllers.
#[derive(Debug, Args)]
pub struct ControllersArgs {
    /// How to reach the API server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Ranges of pod addresses, one a family; nodes get their shares from them.
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16,fd00:10:244::/56")]
    pub cluster_cidr: Vec<String>,
    /// The cluster's CA certificate (PEM), published in every namespace; none is published if not given.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
}

/// What a node's certificates say.
#[derive(Debug, Args)]
pub struct IssueNodeArgs {
    /// The API server's data folder, with the authority in it.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Name of the node.
    #[arg(long)]
    pub name: String,
    /// Addresses of the node.
    #[arg(long, value_delimiter = ',', required = true)]
    pub address: Vec<IpAddr>,
    /// URL of the API server in the node's kubeconfig.
    #[arg(long)]
    pub server: String,
    /// Folder that the files are written to.
    #[arg(long)]
    pub out: PathBuf,
}

impl ServerArgs {
    /// The address that others use.
    pub fn advertised(&self) -> IpAddr {
        match (self.advertise_address, self.bind.ip()) {
            (Some(address), _) => address,
            (None, bound) if bound.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            (None, bound) => bound,
        }
    }

    /// The URL of the server for the administrator.
    pub fn admin_url(&self) -> String {
        let address = SocketAddr::new(self.advertised(), self.bind.port());
        self.admin_server.clone().unwrap_or_else(|| format!("https://{address}"))
    }

    /// Where the administrator's kubeconfig goes.
    pub fn admin_path(&self) -> PathBuf {
        self.admin_kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("admin.kubeconfig"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn server(args: &[&str]) -> ServerArgs {
        let line = ["beeline-control", "all", "--data-dir", "/d"].iter().chain(args);
        match Command::try_parse_from(line).unwrap().role {
            Role::All(args) => args,
            role => panic!("parsed as {role:?}"),
        }
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let args =
            server(&["--etcd-servers", "http://a:1,http://b:2", "--service-cluster-ip-range", "10.0.0.0/16"]);
        assert_eq!(args.etcd_servers, ["http://a:1", "http://b:2"]);
        assert_eq!(args.service_cluster_ip_range, ["10.0.0.0/16"]);
        assert_eq!(args.cluster_cidr.len(), 2);
    }

    #[test]
    fn the_admin_url_follows_the_advertised_address() {
        assert_eq!(server(&[]).admin_url(), "https://127.0.0.1:6443");
        assert_eq!(server(&["--bind", "172.30.0.2:7000"]).admin_url(), "https://172.30.0.2:7000");
        assert_eq!(server(&["--bind", "[::1]:7000"]).admin_url(), "https://[::1]:7000");
        assert_eq!(server(&["--admin-server", "https://127.0.0.1:9"]).admin_url(), "https://127.0.0.1:9");
        assert_eq!(server(&[]).admin_path(), PathBuf::from("/d/admin.kubeconfig"));
    }

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory as _;
        Command::command().debug_assert();
    }
}
