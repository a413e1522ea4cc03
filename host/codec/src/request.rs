//! The body of a request over HTTP as the data of an event. Invariant: what is JSON here is what is JSON in a record.

use sagahost_saga::id::SagaId;

use super::{
    checked_saga,
    data::{Data, check_json, without_byte_order_mark},
    undecodable::{MISSING_SAGA_ID, Undecodable},
};

/// The data, and the saga id where the pointer (RFC 6901) leads to.
///
/// # Errors
/// It is not JSON, or there is no saga id.
pub fn data_of_request<'b>(body: &'b [u8], saga_id: &str) -> Result<(&'b [u8], SagaId), Undecodable> {
    let data = Data::of_json(check_json(without_byte_order_mark(body))?);
    let saga = data.at(saga_id).map_err(|why| Undecodable::new(MISSING_SAGA_ID, why))?;
    Ok((data.bytes(), checked_saga(&saga)?))
}

/// Of a body whose saga is known: JSON, as it is read in records.
///
/// # Errors
/// It is not JSON.
pub fn json_of_request(body: &[u8]) -> Result<&[u8], Undecodable> {
    check_json(without_byte_order_mark(body)).map(str::as_bytes)
}

/// A saga id that is said outside of the data.
///
/// # Errors
/// It is empty, or too long.
pub fn saga_of_request(saga: &str) -> Result<SagaId, Undecodable> {
    checked_saga(saga)
}
