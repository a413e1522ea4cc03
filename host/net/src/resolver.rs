//! Finds the addresses of a name. Invariant: one client keeps few threads waiting for a resolver that does not answer, so that
//! the others find theirs.

use std::{
    error::Error,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use thiserror::Error;
use tokio::sync::Semaphore;
use tower_service::Service;

/// Of one client.
const AT_ONCE: usize = 2;

#[derive(Clone)]
pub(crate) struct Resolver {
    system: GaiResolver,
    places: Arc<Semaphore>,
    /// None: every address may be asked.
    allowed: Option<Allowed>,
}

/// May the address be asked?
pub(crate) type Allowed = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// None of the addresses of a name may be asked.
#[derive(Debug, Error)]
#[error("none of the addresses of {name} may be asked (allow-networks): {}", .found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
pub(crate) struct Forbidden {
    name: String,
    found: Vec<IpAddr>,
}

impl Forbidden {
    /// Is it why something failed?
    pub fn is_behind(error: &(dyn Error + 'static)) -> bool {
        let inner = |error: &(dyn Error + 'static)| {
            let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            error.is::<Self>() || io.is_some_and(|inner| inner.is::<Self>())
        };
        let mut next = Some(error);
        while let Some(error) = next {
            if inner(error) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl Resolver {
    pub fn new() -> Self {
        Self { system: GaiResolver::new(), places: Arc::new(Semaphore::new(AT_ONCE)), allowed: None }
    }

    pub fn guarded(allowed: Allowed) -> Self {
        Self { allowed: Some(allowed), ..Self::new() }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (mut system, places, allowed) = (self.system.clone(), self.places.clone(), self.allowed.clone());
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            // A thread keeps waiting for the resolver when nobody wants its answer any more, and so it keeps its place.
            let asked = name.to_string();
            let found = tokio::spawn(async move {
                let found = system.call(name).await;
                drop(place);
                found
            });
            let found: Vec<SocketAddr> = found.await.map_err(io::Error::other)??.collect();
            let Some(allowed) = allowed else { return Ok(found.into_iter()) };
            let (open, closed): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| allowed(address.ip()));
            if open.is_empty() && !closed.is_empty() {
                let found = closed.iter().map(SocketAddr::ip).collect();
                return Err(io::Error::other(Forbidden { name: asked, found }));
            }
            Ok(open.into_iter())
        })
    }
}
