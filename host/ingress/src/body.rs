//! Bodies of requests. Invariant: what all requests together keep of bodies has a bound, and a request that is not whole is
//! nothing.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// The bytes of a body, and their part of the room for bodies: kept until nothing waits for them any more.
pub struct Whole {
    pub bytes: Vec<u8>,
    pub room: Option<OwnedSemaphorePermit>,
}

/// How much, and how long.
#[derive(Clone)]
pub struct Bounds {
    pub bytes_max: usize,
    pub timeout: Duration,
    /// A permit for each byte.
    pub room: Arc<Semaphore>,
}

/// # Errors
/// It is too long, too slow or cut; or there is no room for it.
pub async fn read(body: Body, bounds: &Bounds) -> Result<Whole, Problem> {
    match tokio::time::timeout(bounds.timeout, read_all(body, bounds)).await {
        Ok(whole) => whole,
        Err(_) => {
            let detail = format!("the body was not complete within {:?} (http.body-timeout)", bounds.timeout);
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail))
        }
    }
}

async fn read_all(mut body: Body, bounds: &Bounds) -> Result<Whole, Problem> {
    let mut whole = Whole { bytes: Vec::new(), room: None };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::bad_request("body-cut", format!("the body was cut: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.bytes.len() + data.len() > bounds.bytes_max {
            let detail = format!("the body has more than {} bytes (http.body-bytes-max)", bounds.bytes_max);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail));
        }
        whole.take_room(data.len(), bounds)?;
        whole.bytes.extend_from_slice(&data);
    }
    Ok(whole)
}

impl Whole {
    fn take_room(&mut self, bytes: usize, bounds: &Bounds) -> Result<(), Problem> {
        let full = || Problem::unavailable("full", "too many requests are being read (http.bodies-bytes-max)");
        let permits = u32::try_from(bytes).map_err(|_| full())?;
        let more = bounds.room.clone().try_acquire_many_owned(permits).map_err(|_| full())?;
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        Ok(())
    }
}
