//! Which addresses a plugin may ask without the operator naming them: those that everybody can ask. Invariant: an address that
//! hides another one counts as what it hides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Not globally reachable, or no single host: IANA's registries of special-purpose addresses (RFC 6890), and multicast.
const SPECIAL_V4: &[([u8; 4], u8)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];
/// Global ones are in 2000::/3 (RFC 4291); these of it are not.
const GLOBAL_V6: ([u16; 8], u8) = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const SPECIAL_V6: &[([u16; 8], u8)] = &[
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// May it be asked?
pub fn allowed(address: IpAddr, networks: &[IpNet]) -> bool {
    let is = plain(address);
    is_global(is) || networks.iter().any(|network| network.contains(&is) || network.contains(&address))
}

/// What is behind it: IPv4 in IPv6 in whatever way (mapped and compatible, RFC 4291; NAT64, RFC 6052; 6to4, RFC 3056).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let last = || Ipv4Addr::from(u32::try_from(u128::from(v6) & 0xffff_ffff).expect("these are 32 bits"));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => address,
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => last().into(),
        [0x2002, high, low, ..] => Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into(),
        _ => address,
    }
}

fn is_global(address: IpAddr) -> bool {
    let in_v6 = |address: &Ipv6Addr, (network, bits): &([u16; 8], u8)| {
        Ipv6Net::new((*network).into(), *bits).expect("it is a prefix").contains(address)
    };
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4
            .iter()
            .any(|(network, bits)| Ipv4Net::new((*network).into(), *bits).expect("it is a prefix").contains(&v4)),
        IpAddr::V6(v6) => in_v6(&v6, &GLOBAL_V6) && !SPECIAL_V6.iter().any(|network| in_v6(&v6, network)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn open(address: &str, networks: &[&str]) -> bool {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        allowed(address.parse().unwrap(), &networks)
    }

    #[test]
    fn only_what_everybody_can_ask_is_open() {
        for address in
            ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(open(address, &[]), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "64:ff9b:1::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!open(address, &[]), "{address}");
        }
    }

    #[test]
    fn what_hides_another_counts_as_that() {
        for address in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::1",
            "2002:a00:1::",
        ] {
            assert!(!open(address, &[]), "{address}");
        }
        for address in ["::ffff:1.1.1.1", "64:ff9b::8.8.8.8", "2002:808:808::1"] {
            assert!(open(address, &[]), "{address}");
        }
    }

    #[test]
    fn the_operator_may_open_more_and_no_more_than_that() {
        assert!(open("10.1.2.3", &["10.0.0.0/8"]) && open("::ffff:10.1.2.3", &["10.0.0.0/8"]));
        assert!(open("127.0.0.1", &["127.0.0.1/32"]) && !open("127.0.0.2", &["127.0.0.1/32"]));
        assert!(open("::1", &["::1/128"]) && !open("::1", &["127.0.0.0/8"]));
        assert!(open("fd00::1", &["fd00::/8"]) && !open("fe80::1", &["fd00::/8"]));
    }
}
