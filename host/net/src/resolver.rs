//! Finds the addresses of a name. Invariant: one client keeps few threads waiting for a resolver that does not answer, so that
//! the others find theirs.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use tokio::sync::Semaphore;
use tower_service::Service;

/// Of one client.
const AT_ONCE: usize = 2;

#[derive(Clone)]
pub(crate) struct Resolver {
    system: GaiResolver,
    places: Arc<Semaphore>,
}

impl Resolver {
    pub fn new() -> Self {
        Self { system: GaiResolver::new(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<GaiAddrs>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (mut system, places) = (self.system.clone(), self.places.clone());
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            // A thread keeps waiting for the resolver when nobody wants its answer any more, and so it keeps its place.
            let found = tokio::spawn(async move {
                let found = system.call(name).await;
                drop(place);
                found
            });
            found.await.map_err(io::Error::other)?
        })
    }
}
