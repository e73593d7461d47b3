//! Reads of the store: short ones on the spot, long ones on a thread of their own.
//!
//! Invariant: the threads that run the protocol are never held for longer than a short read takes,
//! and neither is the store's lock: a long read works on a snapshot. So no range and no hash,
//! however large the store, delays a heartbeat.

use std::sync::{Arc, RwLock};

use api::etcdserverpb::response_op::Response as OpResponse;
use api::etcdserverpb::{RangeResponse, ResponseHeader, ResponseOp, TxnResponse};
use prost::Message;
use tonic::{Response, Status};

use super::grpc::Encoded;
use super::stopped;
use crate::kv::Store;

/// A read that looks at more keys, or an answer that holds more, is long: below that, handing it to
/// a thread and back costs more than it takes.
pub(super) const LONG_KEYS: usize = 1000;
/// So is one that answers with more bytes of keys and values.
pub(super) const LONG_BYTES: usize = 1 << 20;

/// Reads a snapshot of the store, on a thread of its own.
pub(super) async fn apart<T: Send + 'static>(
    store: Arc<RwLock<Store>>,
    read: impl FnOnce(&Store) -> T + Send + 'static,
) -> Result<T, Status> {
    let read = move || {
        let snapshot = store.read().expect("nobody panics holding the store").clone();
        read(&snapshot)
    };
    // The runtime turns work away when it ends.
    tokio::task::spawn_blocking(read).await.map_err(|_| stopped())
}

/// An answer that may be large.
pub(super) trait Answer: Message + Default + Send + 'static {
    /// Takes its header out.
    fn take_header(&mut self) -> Option<ResponseHeader>;
    /// Whether encoding it takes long.
    fn is_long(&self) -> bool;
}

/// Hands an answer to the transport, with its header complete; a long one in its encoded form.
pub(super) async fn hand_over<T: Answer>(mut answer: T) -> Result<Response<T>, Status> {
    if !answer.is_long() {
        return Ok(Response::new(answer));
    }
    let header = answer.take_header();
    let encode = move || answer.encode_to_vec();
    let rest = tokio::task::spawn_blocking(encode).await.map_err(|_| stopped())?;
    let mut response = Response::new(T::default());
    response.extensions_mut().insert(Encoded::new(header, rest)?);
    Ok(response)
}

impl Answer for RangeResponse {
    fn take_header(&mut self) -> Option<ResponseHeader> {
        self.header.take()
    }

    fn is_long(&self) -> bool {
        let bytes = |response: &Self| -> usize {
            response.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum()
        };
        self.kvs.len() > LONG_KEYS || (self.kvs.len() > 1 && bytes(self) > LONG_BYTES)
    }
}

impl Answer for TxnResponse {
    fn take_header(&mut self) -> Option<ResponseHeader> {
        self.header.take()
    }

    fn is_long(&self) -> bool {
        let is_long = |op: &ResponseOp| match &op.response {
            Some(OpResponse::ResponseRange(range)) => range.is_long(),
            Some(OpResponse::ResponseTxn(txn)) => txn.is_long(),
            _ => false,
        };
        self.responses.iter().any(is_long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Command;
    use api::etcdserverpb::PutRequest;
    use tokio::sync::oneshot;

    /// The test's own thread is the runtime's only one. It changes the store, and tells the reader,
    /// while the reader reads: were the read on this thread, or the store locked for it, nobody
    /// would ever go on.
    #[tokio::test]
    async fn a_long_read_holds_up_neither_the_runtime_nor_the_store() {
        let store = Arc::new(RwLock::new(Store::default()));
        let (reading, reads) = oneshot::channel();
        let (change, changed) = std::sync::mpsc::channel();
        let read = apart(Arc::clone(&store), move |snapshot| {
            reading.send(()).expect("the test waits");
            let told = changed.recv_timeout(std::time::Duration::from_secs(20));
            (told, snapshot.revision())
        });
        let meanwhile = async {
            reads.await.expect("it reads");
            let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
            store.write().expect("no panic").apply(Command::Put(put)).expect("a put");
            change.send(()).expect("it still reads");
        };
        let (read, ()) = tokio::join!(read, meanwhile);
        assert_eq!(read.expect("it ran"), (Ok(()), 1), "the snapshot is of before");
        assert_eq!(store.read().expect("no panic").revision(), 2);
    }

    #[tokio::test]
    async fn only_long_answers_are_encoded_apart() {
        let kv = |bytes: usize| api::mvccpb::KeyValue {
            key: "k".into(),
            value: vec![7; bytes].into(),
            ..Default::default()
        };
        let answers = [
            (1, LONG_BYTES + 1, false),
            (2, LONG_BYTES / 2 - 10, false),
            (2, LONG_BYTES / 2 + 10, true),
            (LONG_KEYS, 10, false),
            (LONG_KEYS + 1, 0, true),
        ];
        for (keys, bytes, long) in answers {
            let range = RangeResponse { kvs: vec![kv(bytes); keys], ..Default::default() };
            let op = ResponseOp { response: Some(OpResponse::ResponseRange(range.clone())) };
            let txn = TxnResponse { responses: vec![op], ..Default::default() };
            let txn = hand_over(txn).await.expect("it is handed over");
            assert_eq!(txn.extensions().get::<Encoded>().is_some(), long, "{keys} x {bytes}");
            let range = hand_over(range).await.expect("it is handed over");
            assert_eq!(range.extensions().get::<Encoded>().is_some(), long, "{keys} x {bytes}");
            assert_eq!(range.get_ref().kvs.is_empty(), long);
        }
    }
}
