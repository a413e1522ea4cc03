//! How large and how involved a component is, counted before anything compiles it. Invariant: one pass, whose time and memory
//! are linear in the file's size; what a refusal says are the numbers that were counted.
//!
//! Compilers take more than linear time for some shapes. The worst that is known is a function in which many locals live
//! across many places where control flow joins: each local needs a value of its own at each join (Braun et al., Simple
//! and Efficient Construction of Static Single Assignment Form, 2013). Such a file is refused in milliseconds here; for
//! shapes that nobody thought of there are the bounds of the compiler's process (`compiler`).

use sagahost_manifest::Fault;
use wasmparser::{BlockType, CompositeInnerType, FunctionBody, Operator, Parser, Payload, TypeRef};

/// What a file may have at most: about ten times what the largest guests have that were measured (a component in JavaScript of
/// 12 MB, one in Python of 18 MB).
struct Bound {
    name: &'static str,
    max: u64,
    of: fn(&Shape) -> u64,
    fix: &'static str,
}

const SPLIT: &str = "split the function into smaller ones, or lower the optimisation level of its toolchain";
const SMALLER: &str = "make the plugin smaller: leave out what it does not need";

const BOUNDS: [Bound; 15] = [
    // 14,873
    Bound { name: "functions", max: 200_000, of: |shape| shape.functions, fix: SMALLER },
    // 1,471
    Bound { name: "types", max: 50_000, of: |shape| shape.types, fix: SMALLER },
    // 2,456
    Bound { name: "imports", max: 30_000, of: |shape| shape.imports, fix: SMALLER },
    // 4,480
    Bound { name: "exports", max: 50_000, of: |shape| shape.exports, fix: SMALLER },
    // 113
    Bound { name: "instances", max: 1_000, of: |shape| shape.instances, fix: SMALLER },
    // 40
    Bound { name: "modules and components", max: 400, of: |shape| shape.modules, fix: SMALLER },
    // 1
    Bound { name: "levels of components in each other", max: 8, of: |shape| shape.nesting, fix: SMALLER },
    // 10,002
    Bound { name: "segments of data and elements", max: 100_000, of: |shape| shape.segments, fix: SMALLER },
    // 7,709
    Bound { name: "functions in tables", max: 200_000, of: |shape| shape.elements, fix: SMALLER },
    // 4
    Bound { name: "instructions in one constant", max: 100, of: |shape| shape.constant, fix: SMALLER },
    // 271
    Bound { name: "locals in one function", max: 10_000, of: |shape| shape.locals, fix: SPLIT },
    // 426,843
    Bound { name: "bytes of code in one function", max: 4_000_000, of: |shape| shape.body, fix: SPLIT },
    // 781
    Bound { name: "blocks in each other in one function", max: 8_000, of: |shape| shape.depth, fix: SPLIT },
    // 194,327
    Bound {
        name: "values where control flow joins in one function",
        max: 2_000_000,
        of: |shape| shape.joins,
        fix: SPLIT,
    },
    // 2,871,982
    Bound { name: "values where control flow joins", max: 30_000_000, of: |shape| shape.joins_all, fix: SPLIT },
];

/// Numbers of the whole file, or of the function, constant or place that has most.
#[derive(Debug, Default)]
struct Shape {
    functions: u64,
    types: u64,
    imports: u64,
    exports: u64,
    instances: u64,
    modules: u64,
    nesting: u64,
    segments: u64,
    elements: u64,
    constant: u64,
    locals: u64,
    body: u64,
    depth: u64,
    /// Joins of a function times what each may need: its locals, and what the block takes and leaves.
    joins: u64,
    joins_all: u64,
}

/// What the file has too much of. One that cannot be read has nothing: what compiles it says better what is wrong.
pub(crate) fn faults(component: &[u8]) -> Vec<Fault> {
    let shape = Shape::read(component).unwrap_or_default();
    let too_much = BOUNDS.iter().filter(|bound| (bound.of)(&shape) > bound.max);
    let fault = |Bound { name, max, of, fix }: &Bound| {
        Fault::new(format!("it has {} {name}, {max} are allowed", of(&shape)), "the component", *fix)
    };
    too_much.map(fault).collect()
}

impl Shape {
    fn read(component: &[u8]) -> wasmparser::Result<Self> {
        let mut shape = Self::default();
        // Of each module or component that the pass is inside of: how many values its function types take and leave.
        let mut open: Vec<Vec<u64>> = vec![Vec::new()];
        for payload in Parser::new(0).parse_all(component) {
            shape.count(payload?, &mut open)?;
        }
        Ok(shape)
    }

    fn count(&mut self, payload: Payload<'_>, open: &mut Vec<Vec<u64>>) -> wasmparser::Result<()> {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                open.push(Vec::new());
                self.modules += 1;
                self.nesting = self.nesting.max(open.len() as u64 - 1);
            }
            Payload::End(_) if open.len() > 1 => drop(open.pop()),
            Payload::TypeSection(types) => {
                for group in types {
                    for kind in group?.into_types() {
                        self.types += 1;
                        let values = match &kind.composite_type.inner {
                            CompositeInnerType::Func(func) => func.params().len() + func.results().len(),
                            CompositeInnerType::Array(_)
                            | CompositeInnerType::Struct(_)
                            | CompositeInnerType::Cont(_) => 0,
                        };
                        open.last_mut().expect("the file itself is open").push(values as u64);
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    self.imports += 1;
                    self.functions += u64::from(matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
                }
            }
            Payload::ComponentImportSection(imports) => self.imports += u64::from(imports.count()),
            Payload::ExportSection(exports) => self.exports += u64::from(exports.count()),
            Payload::ComponentExportSection(exports) => self.exports += u64::from(exports.count()),
            Payload::CoreTypeSection(types) => self.types += u64::from(types.count()),
            Payload::ComponentTypeSection(types) => self.types += u64::from(types.count()),
            Payload::InstanceSection(instances) => self.instances += u64::from(instances.count()),
            Payload::ComponentInstanceSection(instances) => self.instances += u64::from(instances.count()),
            Payload::DataSection(data) => self.segments += u64::from(data.count()),
            Payload::ElementSection(elements) => {
                for element in elements {
                    self.segments += 1;
                    self.elements += match element?.items {
                        wasmparser::ElementItems::Functions(items) => u64::from(items.count()),
                        wasmparser::ElementItems::Expressions(_, items) => u64::from(items.count()),
                    };
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    let instructions = global?.init_expr.get_operators_reader().into_iter().count() as u64;
                    self.constant = self.constant.max(instructions);
                }
            }
            Payload::CodeSectionEntry(body) => self.function(&body, open.last().expect("the file itself is open"))?,
            _ => {}
        }
        Ok(())
    }

    fn function(&mut self, body: &FunctionBody<'_>, types: &[u64]) -> wasmparser::Result<()> {
        self.functions += 1;
        self.body = self.body.max(body.range().len() as u64);
        let mut locals = 0;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
        }
        self.locals = self.locals.max(locals);
        let (mut joins, mut depth, mut deepest) = (0_u64, 0_u64, 0_u64);
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                    depth += 1;
                    deepest = deepest.max(depth);
                    joins = joins.saturating_add(locals + values(blockty, types));
                }
                Operator::TryTable { try_table } => {
                    depth += 1;
                    deepest = deepest.max(depth);
                    joins = joins.saturating_add(locals + values(try_table.ty, types));
                }
                Operator::End => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        self.depth = self.depth.max(deepest);
        self.joins = self.joins.max(joins);
        self.joins_all = self.joins_all.saturating_add(joins);
        Ok(())
    }
}

/// What a block takes and leaves.
fn values(block: BlockType, types: &[u64]) -> u64 {
    match block {
        BlockType::Empty => 0,
        BlockType::Type(_) => 1,
        // An index beyond the types is found when the code is validated.
        BlockType::FuncType(index) => types.get(index as usize).copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn counted(text: &str) -> Shape {
        Shape::read(&wat::parse_str(text).unwrap()).unwrap()
    }

    fn told(text: &str) -> Vec<String> {
        faults(&wat::parse_str(text).unwrap()).into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn locals_count_at_each_join_with_what_its_block_takes_and_leaves() {
        let shape = counted(
            "(component (core module
               (type $two (func (param i32 i32) (result i32)))
               (func (param i32) (local i64 i64 i64)
                 block loop end end
                 i32.const 0 i32.const 0 block (type $two) drop end drop)
               (func (local i32) block end)))",
        );
        assert_eq!((shape.functions, shape.locals, shape.depth), (2, 3, 2));
        assert_eq!((shape.joins, shape.joins_all), (3 + 3 + (3 + 3), 3 + 3 + (3 + 3) + 1));
    }

    #[test]
    fn each_bound_is_said_with_its_numbers() {
        let many = |count: usize, text: &str| text.repeat(count);
        let module = |inside: &str| format!("(component (core module {inside}))");
        let function = |locals: usize, body: &str| module(&format!("(func (local {}) {body})", many(locals, "i32 ")));
        let nested = |levels: usize| many(levels, "(component ") + &many(levels, ")");
        let adds = "i32.const 1 ".to_owned() + &many(60, "i32.const 1 i32.add ");
        let cases = [
            (
                function(5_000, &many(401, "loop end ")),
                "it has 2005000 values where control flow joins in one function, 2000000 are allowed",
            ),
            (
                module(&many(16, &format!("(func (local {}) {})", many(4_999, "i32 "), many(390, "loop end ")))),
                "it has 31193760 values where control flow joins, 30000000 are allowed",
            ),
            (function(10_001, ""), "it has 10001 locals in one function, 10000 are allowed"),
            (
                function(1, &(many(8_001, "block ") + &many(8_001, "end "))),
                "it has 8001 blocks in each other in one function, 8000 are allowed",
            ),
            (module(&many(50_001, "(type (func))")), "it has 50001 types, 50000 are allowed"),
            (module(&many(200_001, "(func)")), "it has 200001 functions, 200000 are allowed"),
            (module(&format!("(global i32 {adds})")), "it has 122 instructions in one constant, 100 are allowed"),
            (module(&many(100_001, "(data)")), "it has 100001 segments of data and elements, 100000 are allowed"),
            (
                format!("(component (core module $m) {})", many(1_001, "(core instance (instantiate $m))")),
                "it has 1001 instances, 1000 are allowed",
            ),
            (
                format!("(component {})", many(401, "(core module)")),
                "it has 401 modules and components, 400 are allowed",
            ),
            (nested(10), "it has 9 levels of components in each other, 8 are allowed"),
            (
                module(&format!(
                    "(memory 1) {}",
                    (0..50_001).map(|n| format!("(export \"{n}\" (memory 0))")).collect::<String>()
                )),
                "it has 50001 exports, 50000 are allowed",
            ),
            (
                module(&(0..30_001).map(|n| format!("(import \"a\" \"{n}\" (func))")).collect::<String>()),
                "it has 30001 imports, 30000 are allowed",
            ),
            (
                module(&format!("(table 1 funcref) (func $f) (elem (i32.const 0) func {})", many(200_001, "$f "))),
                "it has 200001 functions in tables, 200000 are allowed",
            ),
            (
                function(1, &many(2_000_000, "nop nop ")),
                "it has 4000004 bytes of code in one function, 4000000 are allowed",
            ),
        ];
        for (text, expected) in &cases {
            assert_eq!(told(text), [*expected]);
        }
        assert_eq!(cases.len(), BOUNDS.len(), "each bound is tried");
    }
}
