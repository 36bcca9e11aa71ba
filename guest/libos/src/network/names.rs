//! Names of hosts: the files in which programs look them up.

use alloc::vec::Vec;

/// The files below `/etc` that say how names are found: path and contents. The name server is the platform itself,
/// which answers for names that the function's egress policy allows.
pub(crate) fn network_files() -> Vec<(&'static [u8], &'static [u8])> {
    alloc::vec![
        (
            b"/etc/hosts",
            b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n169.254.1.2\tspore\n",
        ),
        (b"/etc/resolv.conf", b"nameserver 169.254.1.53\n"),
        (b"/etc/nsswitch.conf", b"hosts: files dns\n"),
        (b"/etc/host.conf", b"multi on\n"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::address::INTERFACE_V4;
    use super::*;

    #[test]
    fn the_machines_own_name_has_the_interfaces_address() {
        let [a, b, c, d] = INTERFACE_V4;
        let line = alloc::format!("{a}.{b}.{c}.{d}\tspore\n");
        let files = network_files();
        let text = core::str::from_utf8(files[0].1).unwrap();
        assert!(text.ends_with(&line), "{text}");
        assert!(files.iter().all(|(_, text)| text.ends_with(b"\n")));
    }
}
