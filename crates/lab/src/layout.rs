//! A lab's folder: the topology with its ports, the secret, a folder for each host.
//!
//! ```text
//! topology.toml pool.secret      an administrator's folder
//! lab.json                       shape and relay ports
//! hosts/<host>/…                 a host's folder each
//! share/                         the log share: a place of its own
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
    /// One site, one host, one database, one server.
    Single,
}

/// A link between the sites: who listens in the relay, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it is, for people: `s1a/agent seen from site-2`.
    pub name: String,
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
}

/// What the supervisor has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Which pool.
    pub shape: Shape,
    /// The hosts.
    pub hosts: Vec<HostLayout>,
    /// The links between the sites.
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
    stretched: bool,
}

impl Ports {
    fn take(&mut self) -> u16 {
        self.next += 1;
        self.next - 1
    }

    /// An endpoint as TOML, with the relay's port for the other site.
    fn endpoint(&mut self, what: &str, site: &str) -> (u16, String) {
        let port = self.take();
        if !self.stretched {
            return (port, format!("{{ at = \"127.0.0.1:{port}\" }}"));
        }
        let other = if site == "site-1" { "site-2" } else { "site-1" };
        let relay = self.take();
        self.links.push(Link { name: format!("{what} seen from {other}"), listen: relay, to: port });
        (port, format!("{{ at = \"127.0.0.1:{port}\", seen_from = {{ \"{other}\" = \"127.0.0.1:{relay}\" }} }}"))
    }
}

/// The ports that a lab takes.
pub fn ports(shape: Shape, base_port: u16) -> std::ops::Range<u16> {
    let endpoints = if shape == Shape::Single { 1 } else { 2 };
    // A server has an address for clients and a link, a host an agent and a PostgreSQL; links between sites count twice.
    let of_hosts = hosts(shape).len() * 2 * endpoints;
    let of_servers = hosts(shape).iter().map(|h| h.servers.len()).sum::<usize>() * (1 + endpoints);
    base_port..base_port.saturating_add((of_hosts + of_servers) as u16)
}

/// Create a lab's folder.
pub fn create(dir: &Path, shape: Shape, base_port: u16) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
    let dir = &dir.canonicalize().map_err(|e| format!("find {}: {e}", dir.display()))?;
    if !(1024..=60_000).contains(&base_port) {
        return Err(format!(
            "{base_port} is no base port: take one from 1024 to 60000; the lab uses the hundred from there on"
        ));
    }
    let (topology, layout) = describe(dir, shape, base_port);
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
    /// The role of its instance, as the topology file names it.
    role: &'static str,
    /// Its servers, and whether each is active.
    servers: &'static [(&'static str, bool)],
}

const fn planned(
    name: &'static str,
    site: &'static str,
    role: &'static str,
    servers: &'static [(&'static str, bool)],
) -> Planned {
    Planned { name, site, role, servers }
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

const SINGLE: &[Planned] = &[planned("s1a", "site-1", "primary", &[("server-1", true)])];

/// The hosts of a shape.
fn hosts(shape: Shape) -> &'static [Planned] {
    match shape {
        Shape::Stretched => STRETCHED,
        Shape::VariantA => VARIANT_A,
        Shape::VariantB => VARIANT_B,
        Shape::Single => SINGLE,
    }
}

fn describe(dir: &Path, shape: Shape, base_port: u16) -> (String, Layout) {
    let stretched = shape != Shape::Single;
    let mut ports = Ports { next: base_port, links: Vec::new(), stretched };
    let mut text =
        String::from("# The topology of a lab: a whole pool on this machine. docs/topology.md describes each key.\n");
    let sites: &[(&str, &str)] = if stretched { &[("site-1", "s1a"), ("site-2", "s2a")] } else { &[("site-1", "s1a")] };
    let mut add = |part: String| text.write_str(&part).expect("writing to a string cannot fail");
    let latency = if shape == Shape::VariantA { "low" } else { "high" };
    add(format!("pool = \"lab.standfast.example\"\nlatency = \"{latency}\"\n"));
    for (name, authority) in sites {
        add(format!("\n[[site]]\nname = \"{name}\"\nauthority = \"{authority}\"\n"));
    }
    // Servers first: the first port is the one that people connect to.
    let mut servers = String::new();
    let mut layouts = Vec::new();
    for host in hosts(shape) {
        let (name, site) = (host.name, host.site);
        for (server, active) in host.servers {
            // Clients are at no site: they reach every server directly.
            let clients = ports.take();
            let (_, link) = ports.endpoint(&format!("{server}/link"), site);
            servers.push_str(&format!(
                "\n[[server]]\nname = \"{server}\"\nhost = \"{name}\"\nclients = {{ at = \"127.0.0.1:{clients}\" }}\n\
                 link = {link}\nactive = {active}\n"
            ));
        }
        layouts.push(HostLayout {
            host: name.to_owned(),
            site: site.to_owned(),
            servers: host.servers.iter().map(|(server, _)| (*server).to_owned()).collect(),
        });
    }
    let mut database = String::from("\n[[database]]\nname = \"mgc\"\n");
    for Planned { name, site, role, .. } in hosts(shape) {
        let (_, agent) = ports.endpoint(&format!("{name}/agent"), site);
        add(format!("\n[[host]]\nname = \"{name}\"\nsite = \"{site}\"\nagent = {agent}\n"));
        let (_, postgres) = ports.endpoint(&format!("{name}/postgres"), site);
        database.push_str(&format!("{role} = {{ host = \"{name}\", postgres = {postgres} }}\n"));
    }
    if stretched {
        database.push_str(&format!("log_shipping = {{ share = \"{}\" }}\n", dir.join("share").display()));
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
        for shape in [Shape::Stretched, Shape::VariantA, Shape::VariantB, Shape::Single] {
            let ports = ports(shape, 7400);
            let (topology, _) = describe(Path::new("/lab"), shape, 7400);
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
            let (lab, _) = describe(Path::new("/lab"), shape, 7400);
            assert_eq!(shape_of(&lab), shape_of(sample), "{shape:?}");
        }
    }
}
