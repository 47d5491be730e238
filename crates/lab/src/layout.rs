//! A lab's folder: the topology with its ports, the secret, a folder for each host.
//!
//! ```text
//! topology.toml pool.secret      an administrator's folder
//! lab.json                       shape and relay ports
//! hosts/<host>/…                 a host's folder each
//! share/                         the log share: a place of its own, unless it is in a bucket
//! ```

use rand::RngCore;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Which pool the lab holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Two sites, two hosts each, a server on each host, and a slow line.
    Stretched,
    /// The reference's variant A: four servers at each site, two of them active, and a fast line (ha-dr §3).
    VariantA,
    /// The reference's variant B: four servers at each site, those of the first active, and a slow line (ha-dr §3).
    VariantB,
    /// Like `Stretched`, with a witness at each site on a host of its own; and every link between two hosts can be cut.
    Witnessed,
    /// One site, one host, one database, one server.
    Single,
}

/// A link: who listens in the relay, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it leads to, for people: `s1a/agent`.
    pub name: String,
    /// The site or the host that it is seen from.
    pub from: String,
    /// The host that it leads to.
    pub host: String,
    /// Both ends are at the same site.
    pub within_site: bool,
    /// The relay's port.
    pub listen: u16,
    /// The real port.
    pub to: u16,
}

/// A chat server of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLayout {
    /// The host.
    pub host: String,
    /// Its site.
    pub site: String,
    /// Its chat servers.
    pub servers: Vec<String>,
    /// It has no database.
    #[serde(default)]
    pub witness: bool,
}

/// What the supervisor has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Which pool.
    pub shape: Shape,
    /// The hosts.
    pub hosts: Vec<HostLayout>,
    /// The links that can be cut.
    pub links: Vec<Link>,
}

impl Layout {
    /// Read the layout of a lab.
    pub fn read(dir: &Path) -> Result<Self, String> {
        let path = dir.join("lab.json");
        let text =
            fs::read(&path).map_err(|e| format!("read {}: {e}; standfast lab up makes a lab", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Whether there is a lab in the folder.
pub fn exists(dir: &Path) -> bool {
    dir.join("lab.json").exists()
}

/// Ports are given in a fixed order from the first one on.
struct Ports {
    next: u16,
    links: Vec<Link>,
    shape: Shape,
}

impl Ports {
    fn take(&mut self) -> u16 {
        self.next += 1;
        self.next - 1
    }

    /// An endpoint on a host as TOML, with the relay's port for everybody who reaches it over a link.
    fn endpoint(&mut self, what: &str, host: &Planned) -> String {
        let to = self.take();
        let mut seen = Vec::new();
        for (from, site) in seen_from(self.shape, host) {
            let listen = self.take();
            let (name, host_name) = (what.to_owned(), host.name.to_owned());
            let within_site = site == host.site;
            self.links.push(Link { name, from: from.to_owned(), host: host_name, within_site, listen, to });
            seen.push(format!("\"{from}\" = \"127.0.0.1:{listen}\""));
        }
        if seen.is_empty() {
            return format!("{{ at = \"127.0.0.1:{to}\" }}");
        }
        format!("{{ at = \"127.0.0.1:{to}\", seen_from = {{ {} }} }}", seen.join(", "))
    }
}

/// Who reaches what is on a host over a link: sites or hosts, with the site of each.
fn seen_from(shape: Shape, host: &Planned) -> Vec<(&'static str, &'static str)> {
    match shape {
        Shape::Single => Vec::new(),
        Shape::Witnessed => hosts(shape).iter().filter(|h| h.name != host.name).map(|h| (h.name, h.site)).collect(),
        Shape::Stretched | Shape::VariantA | Shape::VariantB => {
            let other = if host.site == "site-1" { "site-2" } else { "site-1" };
            vec![(other, other)]
        }
    }
}

/// The ports that a lab takes.
pub fn ports(shape: Shape, base_port: u16) -> std::ops::Range<u16> {
    let of_host = |host: &Planned| {
        let endpoint = 1 + seen_from(shape, host).len();
        // A server has an address for clients and a link, a host an agent, and a PostgreSQL unless it is a witness.
        endpoint + host.role.map_or(0, |_| endpoint) + host.servers.len() * (1 + endpoint)
    };
    let all: usize = hosts(shape).iter().map(of_host).sum();
    base_port..base_port.saturating_add(all as u16)
}

/// A share in a bucket, in place of a folder of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// `s3://bucket/prefix`.
    pub share: String,
    /// Of the store; Amazon's when left out.
    pub endpoint: Option<String>,
    /// The text of the key's file, for every host.
    pub credentials: String,
}

impl Bucket {
    /// The settings of log shipping, as TOML.
    fn settings(&self) -> String {
        let s3 = self.endpoint.as_ref().map_or(String::new(), |at| format!(", s3 = {{ endpoint = \"{at}\" }}"));
        format!("share = \"{}\"{s3}", self.share)
    }
}

/// Create a lab's folder.
pub fn create(dir: &Path, shape: Shape, base_port: u16, bucket: Option<&Bucket>) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
    let dir = &dir.canonicalize().map_err(|e| format!("find {}: {e}", dir.display()))?;
    if !(1024..=60_000).contains(&base_port) {
        return Err(format!(
            "{base_port} is no base port: take one from 1024 to 60000; the lab uses the hundred from there on"
        ));
    }
    let settings = bucket.map_or_else(|| format!("share = \"{}\"", dir.join("share").display()), Bucket::settings);
    let (topology, layout) = describe(&settings, shape, base_port);
    cluster::topology::Topology::from_toml(&topology)
        .map_err(|findings| format!("the lab's topology does not pass: {}", findings[0]))?;
    let mut secret = [0_u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let secret: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let mut folders = vec![dir.clone()];
    folders.extend(layout.hosts.iter().map(|h| crate::host_folder(dir, &h.host)));
    for folder in folders {
        fs::create_dir_all(&folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
        write(&folder.join("topology.toml"), &topology, 0o644)?;
        write(&folder.join("pool.secret"), &format!("{secret}\n"), 0o600)?;
        if let Some(bucket) = bucket {
            write(&folder.join("s3.credentials"), &bucket.credentials, 0o600)?;
        }
    }
    let share = dir.join("share");
    fs::create_dir_all(&share).map_err(|e| format!("create {}: {e}", share.display()))?;
    // The marker of a lab comes last: without it the folder is made anew.
    let text = serde_json::to_string_pretty(&layout).map_err(|e| e.to_string())?;
    write(&dir.join("lab.json"), &text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("write {}: {e}", path.display());
    fs::write(path, text).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

/// A host of a shape.
struct Planned {
    name: &'static str,
    site: &'static str,
    /// The role of its instance, as the topology file names it; a witness has none.
    role: Option<&'static str>,
    /// Its servers, and whether each is active.
    servers: &'static [(&'static str, bool)],
}

const fn planned(
    name: &'static str,
    site: &'static str,
    role: &'static str,
    servers: &'static [(&'static str, bool)],
) -> Planned {
    Planned { name, site, role: Some(role), servers }
}

const fn witness(name: &'static str, site: &'static str) -> Planned {
    Planned { name, site, role: None, servers: &[] }
}

const STRETCHED: &[Planned] = &[
    planned("s1a", "site-1", "primary", &[("server-1", true)]),
    planned("s1b", "site-1", "mirror", &[("server-2", true)]),
    planned("s2a", "site-2", "backup", &[("server-5", false)]),
    planned("s2b", "site-2", "backup_mirror", &[("server-6", false)]),
];

const VARIANT_A: &[Planned] = &[
    planned("s1a", "site-1", "primary", &[("server-1", true), ("server-3", false)]),
    planned("s1b", "site-1", "mirror", &[("server-2", true), ("server-4", false)]),
    planned("s2a", "site-2", "backup", &[("server-5", true), ("server-7", false)]),
    planned("s2b", "site-2", "backup_mirror", &[("server-6", true), ("server-8", false)]),
];

const VARIANT_B: &[Planned] = &[
    planned("s1a", "site-1", "primary", &[("server-1", true), ("server-3", true)]),
    planned("s1b", "site-1", "mirror", &[("server-2", true), ("server-4", true)]),
    planned("s2a", "site-2", "backup", &[("server-5", false), ("server-7", false)]),
    planned("s2b", "site-2", "backup_mirror", &[("server-6", false), ("server-8", false)]),
];

const WITNESSED: &[Planned] = &[
    planned("s1a", "site-1", "primary", &[("server-1", true)]),
    planned("s1b", "site-1", "mirror", &[("server-2", true)]),
    witness("s1w", "site-1"),
    planned("s2a", "site-2", "backup", &[("server-5", false)]),
    planned("s2b", "site-2", "backup_mirror", &[("server-6", false)]),
    witness("s2w", "site-2"),
];

const SINGLE: &[Planned] = &[planned("s1a", "site-1", "primary", &[("server-1", true)])];

/// The hosts of a shape.
fn hosts(shape: Shape) -> &'static [Planned] {
    match shape {
        Shape::Stretched => STRETCHED,
        Shape::VariantA => VARIANT_A,
        Shape::VariantB => VARIANT_B,
        Shape::Witnessed => WITNESSED,
        Shape::Single => SINGLE,
    }
}

fn describe(log_shipping: &str, shape: Shape, base_port: u16) -> (String, Layout) {
    let stretched = shape != Shape::Single;
    let mut ports = Ports { next: base_port, links: Vec::new(), shape };
    let mut text =
        String::from("# The topology of a lab: a whole pool on this machine. docs/topology.md describes each key.\n");
    let sites: &[(&str, &str, &str)] = match shape {
        Shape::Single => &[("site-1", "authority", "s1a")],
        Shape::Witnessed => &[("site-1", "witness", "s1w"), ("site-2", "witness", "s2w")],
        _ => &[("site-1", "authority", "s1a"), ("site-2", "authority", "s2a")],
    };
    let mut add = |part: String| text.write_str(&part).expect("writing to a string cannot fail");
    let latency = if shape == Shape::VariantA { "low" } else { "high" };
    add(format!("pool = \"lab.standfast.example\"\nlatency = \"{latency}\"\n"));
    for (name, part, host) in sites {
        add(format!("\n[[site]]\nname = \"{name}\"\n{part} = \"{host}\"\n"));
    }
    // Servers first: the first port is the one that people connect to.
    let mut servers = String::new();
    let mut layouts = Vec::new();
    for host in hosts(shape) {
        let (name, site) = (host.name, host.site);
        for (server, active) in host.servers {
            // Clients are at no site: they reach every server directly.
            let clients = ports.take();
            let link = ports.endpoint(&format!("{server}/link"), host);
            servers.push_str(&format!(
                "\n[[server]]\nname = \"{server}\"\nhost = \"{name}\"\nclients = {{ at = \"127.0.0.1:{clients}\" }}\n\
                 link = {link}\nactive = {active}\n"
            ));
        }
        layouts.push(HostLayout {
            host: name.to_owned(),
            site: site.to_owned(),
            servers: host.servers.iter().map(|(server, _)| (*server).to_owned()).collect(),
            witness: host.role.is_none(),
        });
    }
    let mut database = String::from("\n[[database]]\nname = \"mgc\"\n");
    for host in hosts(shape) {
        let Planned { name, site, role, .. } = host;
        let agent = ports.endpoint(&format!("{name}/agent"), host);
        add(format!("\n[[host]]\nname = \"{name}\"\nsite = \"{site}\"\nagent = {agent}\n"));
        if let Some(role) = role {
            let postgres = ports.endpoint(&format!("{name}/postgres"), host);
            database.push_str(&format!("{role} = {{ host = \"{name}\", postgres = {postgres} }}\n"));
        }
    }
    if stretched {
        database.push_str(&format!("log_shipping = {{ {log_shipping} }}\n"));
    }
    add(database);
    add(servers);
    (text, Layout { shape, hosts: layouts, links: ports.links })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::topology::{LatencyClass, Role, Topology};

    #[test]
    fn a_lab_takes_the_ports_that_it_says() {
        for shape in [Shape::Stretched, Shape::VariantA, Shape::VariantB, Shape::Witnessed, Shape::Single] {
            let ports = ports(shape, 7400);
            let (topology, _) = describe("share = \"/lab/share\"", shape, 7400);
            assert!(topology.contains(&format!("127.0.0.1:{}\"", ports.end - 1)), "{topology}");
            assert!(!topology.contains(&format!("127.0.0.1:{}\"", ports.end)), "{topology}");
        }
    }

    type Common = (LatencyClass, Vec<(String, Role)>, Vec<(String, String, bool)>);

    /// What the sample and the lab have in common: who stands where in which role, and which servers are active.
    fn shape_of(text: &str) -> Common {
        let topology = Topology::from_toml(text).unwrap_or_else(|f| panic!("{f:?}"));
        let roles = topology.databases[0].roles().map(|(role, i)| (i.host.to_string(), role)).collect();
        let mut servers: Vec<_> =
            topology.servers.iter().map(|s| (s.name.to_string(), s.host.to_string(), s.active)).collect();
        servers.sort();
        (topology.latency, roles, servers)
    }

    #[test]
    fn the_variants_of_the_reference_are_those_of_the_samples() {
        for (shape, sample) in [
            (Shape::VariantA, include_str!("../../../samples/topologies/variant-a.toml")),
            (Shape::VariantB, include_str!("../../../samples/topologies/variant-b.toml")),
        ] {
            let (lab, _) = describe("share = \"/lab/share\"", shape, 7400);
            assert_eq!(shape_of(&lab), shape_of(sample), "{shape:?}");
        }
    }
}
