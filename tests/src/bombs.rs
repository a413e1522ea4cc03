//! Plugin files that are small and cost whoever compiles them much: a good plugin, and something beside it that nobody ever
//! calls. Invariant: each is valid as a file, so that nothing but its shape or its cost is wrong.

/// What is appended to a good plugin, by name.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let module = |inside: String| section(1, &format!("(module {inside})"));
    let component = |inside: String| section(4, &format!("(component {inside})"));
    let numbered = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    let lists = numbered(20_000, &|n| format!("(type $t{} (list $t{n}))", n + 1));
    let tuples = numbered(60, &|n| format!("(type $t{} (tuple $t{n} $t{n}))", n + 1));
    vec![
        ("loops", module(loops(20_000))),
        ("many-functions", module(loops(390).repeat(30))),
        ("wide-tables-of-branches", module(branches(400))),
        ("calls", module(calls(60_000))),
        ("constant", module(format!("(global i64 i64.const 1 {})", "i64.const 1 i64.add ".repeat(500_000)))),
        ("deep-types", component(format!("(type $t0 (list u8)) {lists}"))),
        ("doubling-types", component(format!("(type $t0 (tuple u8)) {tuples}"))),
        ("exports", module(format!("(memory 1) {}", numbered(60_000, &|n| format!("(export \"{n}\" (memory 0))"))))),
        ("instances", component(format!("(core module $m) {}", "(core instance (instantiate $m)) ".repeat(3_000)))),
        ("tables", module("(table 4000000000 funcref)".to_owned())),
        ("manifest", custom(sagahost_sandbox::manifest::SECTION, &vec![b' '; 10_000_000])),
    ]
}

/// Within all bounds of its shape, and half a minute of work for one core. Another `salt`: another file.
pub fn long(salt: u32) -> Vec<u8> {
    section(1, &format!("(module (global i32 i32.const {salt}) {})", calls(60_000)))
}

/// Each of the locals may have another value at the end of each loop.
fn loops(count: usize) -> String {
    let locals = "i32 ".repeat(4_999);
    format!("(func (param i32) (local {locals}) {})", "loop local.get 0 br_if 0 end ".repeat(count))
}

/// Each of them may lead to each end of many blocks.
fn branches(tables: usize) -> String {
    let (begin, end) = ("block ".repeat(2_000), "end ".repeat(2_000));
    let targets = (0..2_000).map(|n| format!("{n} ")).collect::<String>();
    let table = format!("block local.get 0 br_table {targets} 0 end ");
    format!("(func (param i32) {begin}{} {end})", table.repeat(tables))
}

/// One call after the other, each of whoever stands in a table.
fn calls(count: usize) -> String {
    let call = "local.get 0 local.get 0 call_indirect (param i32) ";
    format!("(table 1 funcref) (func (param i32) {})", call.repeat(count))
}

/// A section of a component: a core module, or another component.
fn section(id: u8, text: &str) -> Vec<u8> {
    let bytes = wat::parse_str(text).expect("it is written well");
    [&[id][..], &leb128(bytes.len()), &bytes].concat()
}

fn custom(name: &str, data: &[u8]) -> Vec<u8> {
    let content = [&leb128(name.len())[..], name.as_bytes(), data].concat();
    [&[0][..], &leb128(content.len()), &content].concat()
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
