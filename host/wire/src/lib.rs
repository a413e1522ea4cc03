//! What travels between topics, host and journal. Invariant: nothing here decides anything; a value is the same on
//! whichever side of a boundary it is.

pub mod batch;
pub mod clock;
pub mod letter;
pub mod partition;
pub mod position;
pub mod record;
pub mod stamp;
pub mod topic_name;

pub use batch::{BatchNo, Epoch, Generation, Mark, StreamNo};
pub use letter::StoredLetter;
pub use partition::{Partition, TopicId};
pub use position::Position;
pub use record::{Headers, Outgoing, Record, header_bytes};
pub use stamp::Stamp;
