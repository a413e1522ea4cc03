//! Looks, and tells. Invariant: each failure is logged when it begins and when it ends, not each time.

use std::sync::Arc;

use sagahost_journal::Journal;
use sagahost_net::Client;
use sagahost_wire::clock::Clock;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::{
    look::{Alert, firing},
    receivers::Receiver,
    settings::AlertSettings,
    told::Told,
};

/// Until the runtime ends. `command`: makes of `sagas list` the line that reaches this app.
pub async fn watch(
    settings: AlertSettings,
    app: Arc<str>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    client: Client,
    command: impl Fn(&str) -> String + Send + Sync + 'static,
) {
    let command = Arc::new(command);
    let mut ticks = interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Receiver::ALL.map(|receiver| (receiver, Told::default(), None::<String>));
    let mut unread = false;
    loop {
        ticks.tick().await;
        let (journal, command) = (journal.clone(), command.clone());
        let looked = tokio::task::spawn_blocking(move || firing(&*journal, &*command)).await;
        let alerts: Vec<Alert> = match looked {
            Ok(Ok(alerts)) => alerts,
            Ok(Err(error)) => {
                if !unread {
                    warn!(%error, "failed to read the journal for alerts; nothing is sent until that works");
                }
                unread = true;
                continue;
            }
            // The runtime ends.
            Err(_) => return,
        };
        unread = false;
        for (receiver, told, failed) in &mut told {
            let news = told.news(&alerts);
            if !receiver.hears(&settings, &news) {
                continue;
            }
            match receiver.tell(&settings, &client, &app, &news, clock.now()).await {
                Ok(()) => {
                    if failed.take().is_some() {
                        info!(receiver = receiver.name(), "alerts are received again");
                    }
                    told.knows(news);
                }
                Err(why) => {
                    if failed.as_ref() != Some(&why) {
                        warn!(receiver = receiver.name(), why, "failed to tell what needs a person; trying again");
                    }
                    *failed = Some(why);
                }
            }
        }
    }
}
