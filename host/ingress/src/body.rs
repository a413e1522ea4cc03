//! Bodies of requests. Invariant: what all requests together keep of bodies has a bound, no principal takes all of it, and a
//! request that is not whole is nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{problem::Problem, settings::HttpSettings};

/// The bytes of a body, and their part of the room for bodies.
pub struct Whole {
    pub bytes: Vec<u8>,
    pub room: Room,
}

/// Kept until nothing waits for the bytes any more.
#[derive(Default)]
pub struct Room {
    all: Option<OwnedSemaphorePermit>,
    share: Option<OwnedSemaphorePermit>,
}

/// How much, and how long.
pub struct Bounds {
    bytes_max: usize,
    timeout: Duration,
    /// A permit for each byte.
    all: Arc<Semaphore>,
    /// … and of each principal.
    shares: HashMap<Arc<str>, Arc<Semaphore>>,
}

impl Bounds {
    pub fn new(settings: &HttpSettings) -> Self {
        let HttpSettings { body_bytes_max, bodies_bytes_max, .. } = *settings;
        // One that sends slowly leaves room for others.
        let share =
            if settings.principals.len() > 1 { body_bytes_max.max(bodies_bytes_max / 2) } else { bodies_bytes_max };
        let of = |name: &Arc<str>| (name.clone(), Arc::new(Semaphore::new(share)));
        Self {
            bytes_max: body_bytes_max,
            timeout: settings.body_timeout,
            all: Arc::new(Semaphore::new(bodies_bytes_max)),
            shares: settings.principals.iter().map(|principal| of(&principal.name)).collect(),
        }
    }

    /// `principal`: whose body it is.
    ///
    /// # Errors
    /// It is too long, too slow or cut; there is no room for it; or the host stops first.
    pub async fn read(
        &self,
        body: Body,
        principal: &str,
        stopping: impl Future<Output = ()>,
    ) -> Result<Whole, Problem> {
        tokio::select! {
            whole = self.read_all(body, principal) => whole,
            () = tokio::time::sleep(self.timeout) => {
                let detail = format!("the body was not complete within {:?} (http.body-timeout)", self.timeout);
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail))
            }
            () = stopping => Err(Problem::stopping()),
        }
    }

    async fn read_all(&self, mut body: Body, principal: &str) -> Result<Whole, Problem> {
        let mut whole = Whole { bytes: Vec::new(), room: Room::default() };
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Problem::bad_request("body-cut", format!("the body was cut: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.bytes.len() + data.len() > self.bytes_max {
                let detail = format!("the body has more than {} bytes (http.body-bytes-max)", self.bytes_max);
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail));
            }
            self.take(&mut whole.room, principal, data.len())?;
            whole.bytes.extend_from_slice(&data);
        }
        Ok(whole)
    }

    fn take(&self, room: &mut Room, principal: &str, bytes: usize) -> Result<(), Problem> {
        let full = || Problem::unavailable("full", "too many requests are being read (http.bodies-bytes-max)");
        let permits = u32::try_from(bytes).map_err(|_| full())?;
        let of = |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_many_owned(permits).map_err(|_| full());
        let share = self.shares.get(principal).map(of).transpose()?;
        merge(&mut room.all, Some(of(&self.all)?));
        merge(&mut room.share, share);
        Ok(())
    }
}

fn merge(permit: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (permit, more) {
        (Some(permit), Some(more)) => permit.merge(more),
        (permit, more) => *permit = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Principal, Sees};

    fn bounds(names: &[&str]) -> Bounds {
        let principal =
            |name: &&str| Principal { name: (*name).into(), proofs: Vec::new(), routes: None, sees: Sees::Own };
        Bounds::new(&HttpSettings {
            body_bytes_max: 10,
            bodies_bytes_max: 40,
            ..HttpSettings::for_tests(names.iter().map(principal).collect())
        })
    }

    #[test]
    fn no_principal_takes_all_of_the_room() {
        let taken = |bounds: &Bounds, room: &mut Room, name, bytes| bounds.take(room, name, bytes).is_ok();
        let both = bounds(&["ann", "bob"]);
        let (mut ann, mut bob) = (Room::default(), Room::default());
        assert!(taken(&both, &mut ann, "ann", 12) && taken(&both, &mut ann, "ann", 8));
        assert!(!taken(&both, &mut Room::default(), "ann", 1));
        assert!(taken(&both, &mut bob, "bob", 20) && !taken(&both, &mut bob, "bob", 1));
        drop(ann);
        assert!(taken(&both, &mut Room::default(), "ann", 20), "what is over is free again");
        for alone in [bounds(&[]), bounds(&["ann"])] {
            let mut room = Room::default();
            assert!(taken(&alone, &mut room, "ann", 40) && !taken(&alone, &mut room, "ann", 1));
        }
    }
}
