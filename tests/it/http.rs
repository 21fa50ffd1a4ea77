//! HTTP/1.1 byte by byte, for what no client library sends.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::node::within;

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    /// What has come and has not been looked at.
    read: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value; header names are in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The sentence of an answer that says what is wrong.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

impl Wire {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await;
        Self {
            stream: stream.unwrap(),
            read: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next answer, which has a length or comes in chunks.
    pub(crate) async fn answer(&mut self) -> Answer {
        within("an answer", self.read_answer(true)).await
    }

    /// The same for HEAD, whose answer has no body.
    pub(crate) async fn answer_without_body(&mut self) -> Answer {
        within("an answer", self.read_answer(false)).await
    }

    async fn read_answer(&mut self, has_body: bool) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let length = answer.header("content-length");
        let length = length.map(|length| length.parse().unwrap());
        answer.body = match length {
            _ if !has_body => Vec::new(),
            Some(length) => self.exactly(length).await,
            None if answer.header("transfer-encoding") == Some("chunked") => self.chunks().await,
            None => Vec::new(),
        };
        answer
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            all.extend(self.exactly(length).await);
            self.until(b"\r\n").await;
            if length == 0 {
                return all;
            }
        }
    }

    /// One request and its answer.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// Waits until the server has closed the connection, and gives what came before.
    pub(crate) async fn closed(mut self) -> Vec<u8> {
        within("the server closes the connection", async {
            // A reset is an end, too.
            while self.stream.read_buf(&mut self.read).await.unwrap_or(0) > 0 {}
        })
        .await;
        self.read
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.read.windows(end.len()).position(|piece| piece == end);
            if let Some(at) = found {
                return self.read.drain(..at + end.len()).collect();
            }
            self.more().await;
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            self.more().await;
        }
        self.read.drain(..length).collect()
    }

    async fn more(&mut self) {
        let came = self.stream.read_buf(&mut self.read).await.unwrap();
        let read = String::from_utf8_lossy(&self.read);
        assert!(came > 0, "the connection ends after {read:?}");
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// A POST with this body and these header lines.
pub(crate) fn post(path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = format!("content-length: {}", body.len());
    [head(path, &[headers, &[&length]].concat()).as_bytes(), body].concat()
}

/// A POST up to its body.
pub(crate) fn head(path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

/// One row of numbers for a simulated model, as JSON.
pub(crate) fn row(numbers: &[f32]) -> String {
    let shape = [1, numbers.len()];
    format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{shape:?},"data":{numbers:?}}}]}}"#
    )
}

/// Whether a simulated model gave back the row that it was sent.
#[track_caller]
pub(crate) fn assert_echo(answer: &Answer, numbers: &[f32]) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let said = answer.json();
    let data = said["outputs"][0]["data"].as_array().unwrap().iter();
    let data: Vec<f32> = data.map(|one| one.as_f64().unwrap() as f32).collect();
    assert_eq!(data, numbers);
}
