//! What handlers and undo functions look like. Invariant: what the compiler would say about generated code is said here
//! about the author's.

use syn::{FnArg, GenericArgument, ImplItemFn, PathArguments, ReceiverKind, ReturnType, Signature, Type};

pub const HANDLER: &str = "a handler looks like `fn charge(&self, ctx: &Context, order: OrderCreated) -> \
    Handled<UndoData>` (without an `#[undo]`: `-> Handled`)";
pub const UNDO: &str = "an undo function looks like `fn refund(&self, ctx: &Context, \
    step: Step<OrderCreated, UndoData>) -> Compensated`";

/// Three parameters and an answer; the types themselves are the compiler's business.
pub fn check(function: &ImplItemFn, shape: &str) -> syn::Result<()> {
    let Signature { inputs, output, asyncness, generics, .. } = &function.sig;
    let wrong = |what: &str| Err(syn::Error::new_spanned(&function.sig, format!("{what}: {shape}")));
    if asyncness.is_some() {
        return wrong("nothing can be awaited here");
    }
    if !generics.params.is_empty() {
        return wrong("the host cannot choose type parameters");
    }
    match inputs.first() {
        Some(FnArg::Receiver(me)) => match me.kind {
            ReceiverKind::Reference(_, _, None) => {}
            ReceiverKind::Reference(_, _, Some(_)) => {
                return wrong("`self` does not outlive the call; what must be kept goes into the state or the store");
            }
            _ => return wrong("the first parameter is `&self`"),
        },
        Some(FnArg::Typed(_)) | None => return wrong("the first parameter is `&self`"),
    }
    if inputs.len() != 3 {
        return wrong(&format!("it takes {} parameters, not 3", inputs.len()));
    }
    if matches!(output, ReturnType::Default) {
        return wrong("it must answer");
    }
    Ok(())
}

/// The third parameter: the event, or the step.
pub fn subject(function: &ImplItemFn) -> Option<&Type> {
    match function.sig.inputs.iter().nth(2)? {
        FnArg::Typed(parameter) => Some(&parameter.ty),
        FnArg::Receiver(_) => None,
    }
}

/// What it returns.
pub fn answer(function: &ImplItemFn) -> Option<&Type> {
    match &function.sig.output {
        ReturnType::Type(_, answer) => Some(answer),
        ReturnType::Default => None,
    }
}

/// What stands between the angle brackets of `Handled<…>`; none where it is spelt in another way.
pub fn handed_over(function: &ImplItemFn) -> Option<Vec<&Type>> {
    arguments_of(answer(function)?, "Handled")
}

/// The same of `Step<Event, UndoData>`.
pub fn step(function: &ImplItemFn) -> Option<Vec<&Type>> {
    arguments_of(subject(function)?, "Step")
}

fn arguments_of<'a>(of: &'a Type, name: &str) -> Option<Vec<&'a Type>> {
    let Type::Path(path) = of else { return None };
    let last = path.path.segments.last()?;
    if last.ident != name {
        return None;
    }
    Some(match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(of) => Some(of),
                _ => None,
            })
            .collect(),
        PathArguments::None | PathArguments::Parenthesized(_) => Vec::new(),
    })
}
