//! The orders of the demonstration and of the load tests, and what must be true when all of them have ended.
//! Invariant: the same number and seed make the same orders.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Data of `OrderCreated`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub order_id: String,
    pub customer_id: String,
    pub sku: String,
    pub quantity: u32,
    pub amount_cents: u64,
    pub currency: String,
}

/// What a load is made of; each share is "one in so many orders", 0 for none.
#[derive(Clone, Debug)]
pub struct Shape {
    pub orders: usize,
    pub customers: usize,
    pub articles: usize,
    /// Amounts above the limit of the payment plugin.
    pub declined_one_in: usize,
    /// Orders of an article that has run out.
    pub scarce_one_in: usize,
    pub prefix: String,
}

impl Shape {
    pub fn of(orders: usize) -> Self {
        Self { orders, customers: 200, articles: 100, declined_one_in: 11, scarce_one_in: 13, prefix: "o".to_owned() }
    }
}

pub const LIMIT_CENTS: u64 = 100_000;
/// Of this article one order takes most of the stock.
pub const SCARCE: &str = "piano";

/// The orders, in the order of their numbers.
pub fn orders(shape: &Shape) -> impl Iterator<Item = Order> + '_ {
    (0..shape.orders).map(move |number| {
        let one_in = |share: usize| share > 0 && number % share == share - 1;
        let scarce = one_in(shape.scarce_one_in);
        let amount = 500 + (number as u64 * 7_919) % 4_000;
        Order {
            order_id: format!("{}-{number:06}", shape.prefix),
            customer_id: format!("c-{}", number % shape.customers.max(1)),
            sku: if scarce { SCARCE.to_owned() } else { format!("article-{}", number % shape.articles.max(1)) },
            quantity: if scarce { 600 } else { 1 + (number % 3) as u32 },
            amount_cents: if one_in(shape.declined_one_in) { LIMIT_CENTS + amount } else { amount },
            currency: "EUR".to_owned(),
        }
    })
}

/// What was read of the end of each order.
#[derive(Debug, Default)]
pub struct Ends {
    pub completed: BTreeMap<String, usize>,
    pub cancelled: BTreeMap<String, usize>,
    /// When an order's end was published, milliseconds since 1970.
    pub ended_ms: BTreeMap<String, u64>,
}

impl Ends {
    /// A record of topic `order-completed` or `order-cancelled`.
    pub fn read(&mut self, kind: &str, order_id: &str, at_ms: u64) {
        let ends = if kind == "OrderCompleted" { &mut self.completed } else { &mut self.cancelled };
        *ends.entry(order_id.to_owned()).or_default() += 1;
        self.ended_ms.entry(order_id.to_owned()).or_insert(at_ms);
    }

    pub fn len(&self) -> usize {
        self.ended_ms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ended_ms.is_empty()
    }

    /// Every order has ended once, in one way; each line is one that has not.
    pub fn faults(&self, orders: &[Order]) -> Vec<String> {
        let known: BTreeSet<&str> = orders.iter().map(|order| order.order_id.as_str()).collect();
        let mut faults: Vec<String> = orders
            .iter()
            .filter_map(|order| {
                let completed = self.completed.get(&order.order_id).copied().unwrap_or(0);
                let cancelled = self.cancelled.get(&order.order_id).copied().unwrap_or(0);
                (completed + cancelled != 1)
                    .then(|| format!("{}: {completed} × completed, {cancelled} × cancelled", order.order_id))
            })
            .collect();
        let strangers = self.ended_ms.keys().filter(|order| !known.contains(order.as_str()));
        faults.extend(strangers.map(|order| format!("{order}: ended, was never created")));
        faults
    }
}

/// Orders that ended otherwise than three plugins alone decide, whatever came in between: above the limit cancelled; of
/// an article with enough stock completed; of one with too little as many completed as the stock allows. Customers must
/// be able to pay all that they order.
pub fn wrong_ends(orders: &[Order], ends: &Ends, opening_stock: i64) -> Vec<String> {
    let completed = |order: &&Order| ends.completed.contains_key(&order.order_id);
    let (payable, declined): (Vec<&Order>, Vec<&Order>) =
        orders.iter().partition(|order| order.amount_cents <= LIMIT_CENTS);
    let mut wrong: Vec<String> = declined
        .into_iter()
        .filter(completed)
        .map(|order| {
            format!("{}: completed, although {} cents are above the limit", order.order_id, order.amount_cents)
        })
        .collect();
    let mut articles: BTreeMap<&str, Vec<&Order>> = BTreeMap::new();
    for order in payable {
        articles.entry(&order.sku).or_default().push(order);
    }
    for (article, orders) in articles {
        let quantity = |orders: &[&Order]| orders.iter().map(|order| i64::from(order.quantity)).sum::<i64>();
        let (sold, refused): (Vec<&Order>, Vec<&Order>) = orders.into_iter().partition(completed);
        let left = opening_stock - quantity(&sold);
        if left < 0 {
            wrong.push(format!("{article}: {} more were sold than there were", -left));
        }
        // Nothing gives stock back here, so an order that would still fit was never refused rightly.
        let fits = refused.iter().filter(|order| i64::from(order.quantity) <= left);
        wrong.extend(fits.map(|order| {
            format!("{}: cancelled, although it can be paid and {left} of {article} are left", order.order_id)
        }));
    }
    wrong
}

/// What the plugins' counters say, by participant and name.
pub type Counters = BTreeMap<(String, String), i64>;

/// `sagahost plugins counters --json`: rows of participant, name and value.
pub fn counters_of(json: &Value) -> Counters {
    let rows = json.as_array().or_else(|| json.get("counters").and_then(Value::as_array));
    rows.into_iter()
        .flatten()
        .filter_map(|row| {
            let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
            let value = row.get("value").and_then(Value::as_i64)?;
            Some(((text("participant")?, text("name")?), value))
        })
        .collect()
}

/// Money and stock are conserved: what is missing from the counters is what the completed orders took.
pub fn conservation_faults(
    orders: &[Order],
    ends: &Ends,
    counters: &Counters,
    opening_balance_cents: i64,
    opening_stock: i64,
) -> Vec<String> {
    let mut expected: Counters = BTreeMap::new();
    for order in orders {
        let completed = ends.completed.contains_key(&order.order_id);
        let balance = ("payment".to_owned(), format!("balance/{}", order.customer_id));
        let stock = ("inventory".to_owned(), format!("stock/{}", order.sku));
        let (paid, sold) = if completed { (order.amount_cents as i64, i64::from(order.quantity)) } else { (0, 0) };
        *expected.entry(balance).or_insert(opening_balance_cents) -= paid;
        *expected.entry(stock).or_insert(opening_stock) -= sold;
    }
    let opening = |participant: &str| if participant == "payment" { opening_balance_cents } else { opening_stock };
    expected
        .iter()
        .filter_map(|(counter, wanted)| {
            // A counter that nobody touched does not exist yet.
            let there = counters.get(counter).copied().unwrap_or_else(|| opening(&counter.0));
            (there != *wanted).then(|| format!("{} {}: {there}, should be {wanted}", counter.0, counter.1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(orders: &[Order]) -> Ends {
        let mut ends = Ends::default();
        for (number, order) in orders.iter().enumerate() {
            ends.read(if number % 2 == 0 { "OrderCompleted" } else { "OrderCancelled" }, &order.order_id, 1);
        }
        ends
    }

    #[test]
    fn an_order_that_ends_twice_or_never_is_found() {
        let orders: Vec<Order> = orders(&Shape::of(4)).collect();
        let mut ends = ended(&orders);
        assert_eq!(ends.faults(&orders), Vec::<String>::new());
        ends.read("OrderCancelled", &orders[0].order_id, 2);
        ends.cancelled.remove(&orders[1].order_id);
        assert_eq!(ends.faults(&orders).len(), 2);
    }

    #[test]
    fn orders_that_should_have_ended_otherwise_are_found() {
        let orders: Vec<Order> = orders(&Shape { declined_one_in: 4, scarce_one_in: 3, ..Shape::of(24) }).collect();
        let payable = |order: &&Order| order.amount_cents <= LIMIT_CENTS;
        let the_piano = orders.iter().find(|order| payable(order) && order.sku == SCARCE).expect("one is asked for");
        let mut right = Ends::default();
        for order in &orders {
            let completes = payable(&order) && (order.sku != SCARCE || order == the_piano);
            right.read(if completes { "OrderCompleted" } else { "OrderCancelled" }, &order.order_id, 1);
        }
        assert_eq!(wrong_ends(&orders, &right, 1_000), Vec::<String>::new());
        let other = |order: &Order, kind: &str| {
            let mut ends = Ends { completed: right.completed.clone(), ..Ends::default() };
            ends.completed.remove(&order.order_id);
            ends.read(kind, &order.order_id, 1);
            wrong_ends(&orders, &ends, 1_000).len()
        };
        let one = |is: &dyn Fn(&Order) -> bool| orders.iter().find(|order| is(order)).expect("there is one");
        assert_eq!(other(one(&|order| !payable(&order)), "OrderCompleted"), 1, "above the limit");
        assert_eq!(other(one(&|order| payable(&order) && order.sku != SCARCE), "OrderCancelled"), 1, "it was payable");
        let late = one(&|order| payable(&order) && order.sku == SCARCE && order != the_piano);
        assert_eq!(other(late, "OrderCompleted"), 1, "more than there were");
        assert!(other(the_piano, "OrderCancelled") > 1, "one was left");
    }

    #[test]
    fn money_that_is_missing_is_found() {
        let orders: Vec<Order> = orders(&Shape::of(4)).collect();
        let ends = ended(&orders);
        let mut counters: Counters = BTreeMap::new();
        for order in orders.iter().step_by(2) {
            let paid = 1_000 - order.amount_cents as i64;
            counters.insert(("payment".into(), format!("balance/{}", order.customer_id)), paid);
            let left = 10 - i64::from(order.quantity);
            counters.insert(("inventory".into(), format!("stock/{}", order.sku)), left);
        }
        assert_eq!(conservation_faults(&orders, &ends, &counters, 1_000, 10), Vec::<String>::new());
        *counters.values_mut().next().expect("there are counters") -= 1;
        assert_eq!(conservation_faults(&orders, &ends, &counters, 1_000, 10).len(), 1);
    }
}
