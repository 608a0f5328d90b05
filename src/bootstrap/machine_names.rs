//! The names of this machine, by which its admin API may be reached.

use std::fs;

/// Where names of addresses are looked up first.
const HOSTS_FILE: &str = "/etc/hosts";

/// Returns the names on the lines of a hosts file that have `name`.
fn aliases(hosts: &str, name: &str) -> Vec<String> {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    lines
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|names| names.iter().any(|found| found.eq_ignore_ascii_case(name)))
        .flatten()
        .map(str::to_owned)
        .collect()
}

/// Returns the host name, and the names that belong to it in the hosts file: that is where a
/// machine's name with its domain usually is. Nothing is looked up on the network.
pub(super) fn machine_names() -> Vec<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        return vec![];
    }
    let hosts = fs::read_to_string(HOSTS_FILE).unwrap_or_default();
    let mut names = aliases(&hosts, &name);
    names.push(name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_on_the_line_of_the_name() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.1 old box\n10.0.0.2 box.example.com Box # x\n";
        assert_eq!(aliases(hosts, "box"), ["box.example.com", "Box"]);
        assert!(aliases(hosts, "10.0.0.2").is_empty());
    }
}
