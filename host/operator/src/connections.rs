//! Open connections, and which of them is closed when there are too many. Invariant: a connection whose request waits for its answer is
//! never closed for another one; all others are, those that have sent nothing for longest first.
//!
//! An idle connection costs a place and nothing else, so no number of them keeps anybody out: the next one takes the
//! place of the oldest.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// What a connection is doing, in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Nothing of a request has come.
    Idle,
    /// A request has begun.
    Sending,
    /// An answer is being sent.
    Receiving,
    /// The host is about to answer.
    Answering,
}

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionNo(u64);

struct Connection {
    phase: Phase,
    /// When it came to its phase: a number that grows with each change.
    since: u64,
    /// Of its request or its answer.
    bytes: usize,
    /// Tells it that it must end, and what it was doing.
    end: oneshot::Sender<Phase>,
}

/// All connections of one server.
pub(super) struct Connections {
    open: BTreeMap<ConnectionNo, Connection>,
    changes: u64,
    connections_max: usize,
    bytes_max: usize,
}

impl Connections {
    pub(super) fn new(connections_max: usize, bytes_max: usize) -> Self {
        Self { open: BTreeMap::new(), changes: 0, connections_max, bytes_max }
    }

    /// A place for one that has just connected, with what tells it that it must end. None: all are being answered.
    pub(super) fn enter(&mut self) -> Option<(ConnectionNo, oneshot::Receiver<Phase>)> {
        while self.open.len() >= self.connections_max {
            self.close_one(None, |_| true)?;
        }
        let (end, ended) = oneshot::channel();
        let since = self.change();
        let number = ConnectionNo(since);
        self.open.insert(number, Connection { phase: Phase::Idle, since, bytes: 0, end });
        Some((number, ended))
    }

    /// From here on it does this, and has so many bytes of a request or an answer.
    pub(super) fn turn_to(&mut self, number: ConnectionNo, phase: Phase, bytes: usize) {
        let since = self.change();
        if let Some(connection) = self.open.get_mut(&number) {
            (connection.phase, connection.since, connection.bytes) = (phase, since, bytes);
        }
    }

    /// Its request has so many bytes now. False: there is no room for them, whoever else goes.
    pub(super) fn hold(&mut self, number: ConnectionNo, bytes: usize) -> bool {
        if let Some(connection) = self.open.get_mut(&number) {
            connection.bytes = bytes;
        }
        while self.bytes() > self.bytes_max {
            if self.close_one(Some(number), |connection| connection.bytes > 0).is_none() {
                return false;
            }
        }
        true
    }

    pub(super) fn leave(&mut self, number: ConnectionNo) {
        self.open.remove(&number);
    }

    fn bytes(&self) -> usize {
        self.open.values().map(|connection| connection.bytes).sum()
    }

    fn change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// None: none may go.
    fn close_one(&mut self, but: Option<ConnectionNo>, fits: impl Fn(&Connection) -> bool) -> Option<()> {
        let may_go = self.open.iter().filter(|(number, connection)| {
            connection.phase != Phase::Answering && Some(**number) != but && fits(connection)
        });
        let (&number, _) = may_go.min_by_key(|(_, connection)| (connection.phase, connection.since))?;
        let gone = self.open.remove(&number)?;
        // Fails only where the connection has ended by itself.
        let _ = gone.end.send(gone.phase);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn ended(end: &mut oneshot::Receiver<Phase>) -> bool {
        end.try_recv().is_ok()
    }

    #[test]
    fn the_oldest_idle_one_goes_then_the_oldest_that_sends() {
        let mut connections = Connections::new(4, 100);
        let mut all: Vec<_> = (0..4).map(|_| connections.enter().unwrap()).collect();
        let phases = [Phase::Answering, Phase::Sending, Phase::Idle, Phase::Receiving];
        all.iter().zip(phases).for_each(|((number, _), phase)| connections.turn_to(*number, phase, 0));
        for gone in [2, 1, 3] {
            let (newest, _) = connections.enter().unwrap();
            connections.turn_to(newest, Phase::Answering, 0);
            assert!(ended(&mut all[gone].1), "{gone}");
        }
        assert!(!ended(&mut all[0].1), "one that is being answered stays");
        assert!(connections.enter().is_none(), "all are being answered");
        connections.leave(all[0].0);
        assert!(connections.enter().is_some());
    }

    #[test]
    fn a_connection_that_was_used_is_not_the_oldest() {
        let mut connections = Connections::new(2, 100);
        let (mut first, mut second) = (connections.enter().unwrap(), connections.enter().unwrap());
        connections.turn_to(first.0, Phase::Sending, 0);
        connections.turn_to(first.0, Phase::Idle, 0);
        connections.enter().unwrap();
        assert!(ended(&mut second.1) && !ended(&mut first.1));
    }

    #[test]
    fn bytes_of_all_requests_are_bounded() {
        let mut connections = Connections::new(8, 100);
        let mut all: Vec<_> = (0..3).map(|_| connections.enter().unwrap()).collect();
        all.iter().take(2).for_each(|(number, _)| connections.turn_to(*number, Phase::Sending, 0));
        assert!(connections.hold(all[0].0, 60) && connections.hold(all[1].0, 40));
        assert!(!ended(&mut all[0].1));
        assert!(connections.hold(all[1].0, 41), "the one before makes room");
        assert!(ended(&mut all[0].1) && !ended(&mut all[2].1), "one without bytes would make none");
        connections.turn_to(all[1].0, Phase::Answering, 41);
        assert!(!connections.hold(all[2].0, 60), "one that is being answered keeps its bytes");
    }
}
