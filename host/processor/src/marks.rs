//! What the committed offsets of the app's group say: which batch was published last.

use std::collections::BTreeMap;

use sagahost_transport::{Isolation, Sink, TransportError};
use sagahost_wire::{Mark, Partition};

/// Committed offsets, with what their metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(pub BTreeMap<Partition, (i64, Option<Mark>)>);

impl Marks {
    pub fn newest(&self) -> Option<&Mark> {
        self.0.values().filter_map(|(_, mark)| mark.as_ref()).max_by_key(|mark| mark.batch)
    }
    pub fn of(&self, partition: &Partition) -> Option<&Mark> {
        self.0.get(partition).and_then(|(_, mark)| mark.as_ref())
    }
    pub fn offset(&self, partition: &Partition) -> Option<i64> {
        self.0.get(partition).map(|(offset, _)| *offset)
    }
}

pub fn read_marks(
    sink: &mut dyn Sink,
    partitions: &[Partition],
    isolation: Isolation,
) -> Result<Marks, TransportError> {
    let committed = sink.committed(partitions, isolation)?;
    let marked = committed.into_iter().map(|(partition, at)| (partition, (at.offset, Mark::parse(&at.metadata))));
    Ok(Marks(marked.collect()))
}
