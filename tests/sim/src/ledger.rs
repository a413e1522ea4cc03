//! A participant that reads what it writes: store, scans and counters by value. All that it enters for one article
//! conflicts with the rest, and must come out as if one had followed the other.

use sagahost_sdk::prelude::*;

/// The money is taken.
#[event(example = {"orderId": "o-1", "sku": "apple"})]
pub struct PaymentProcessed {
    pub order_id: String,
    pub sku: String,
}

/// It is entered.
#[event]
pub struct PaymentEntered {
    pub order_id: String,
}

#[derive(Config)]
pub struct Ledger {}

#[participant(name = "ledger", emits = [PaymentEntered])]
impl Ledger {
    #[on(PaymentProcessed, role = nothing_to_undo)]
    fn enter(&self, ctx: &Context, paid: PaymentProcessed) -> Handled {
        let PaymentProcessed { order_id, sku } = paid;
        let store = ctx.store();
        let count: u64 = store.get(&format!("count/{sku}")).unwrap_or(0);
        store.put(&format!("count/{sku}"), &(count + 1));
        // Every third page takes the place of the one before it: deleted keys must not shorten a scan.
        let pages = store.scan::<u64>(&format!("page/{sku}/"), None, 1_000);
        let entered: u64 = pages.iter().map(|(_, entries)| entries).sum();
        let replaced = pages.last().filter(|_| count % 3 == 2).map(|(key, entries)| (key.clone(), *entries));
        if let Some((key, _)) = &replaced {
            store.delete(key);
        }
        store.put(&format!("page/{sku}/{order_id}"), &(1 + replaced.map_or(0, |(_, entries)| entries)));
        store.put(&format!("entered/{sku}"), &(entered + 1));
        let counter = ctx.counter(format!("entries/{sku}"));
        let counter = counter.ensure(0);
        let known = counter.read().unwrap_or(0);
        counter.give(1);
        store.put(&format!("read/{sku}"), &(known + 1));
        Ok(Done::nothing_to_undo().emit(PaymentEntered { order_id }))
    }
}
