//! One end of a pair of sockets: whole messages, with files where they need some.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use prost::Message;
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// A longer message travels in a file.
const MOST_INLINE: usize = 32 << 10;
/// Files that come with one message, beside the one that the message itself may be in.
pub(super) const MOST_FILES: usize = 64;

/// No message is longer: the longest tell of a batch with as many tensors as a model may have, whose
/// elements lie elsewhere.
const MOST: u64 = 64 << 20;

/// How a message travels: its first byte.
const HERE: u8 = 1;
const IN_A_FILE: u8 = 2;

/// One end of a pair of sockets.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Channel {
    /// Two ends, of which the second is for somebody else.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        // Each message comes whole or not at all.
        let (own, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::over(own), other))
    }

    pub(super) fn over(socket: OwnedFd) -> Self {
        Self {
            socket,
            outgoing: Vec::new(),
            incoming: vec![0; MOST_INLINE],
        }
    }

    /// How long to wait for a message from now on; for ever if none.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        // The kernel takes none to be no bound.
        let patience = patience.map(|patience| patience.max(Duration::from_millis(1)));
        Ok(set_socket_timeout(&self.socket, Timeout::Recv, patience)?)
    }

    pub(super) fn send(
        &mut self,
        message: &impl Message,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.outgoing.clear();
        self.outgoing.push(HERE);
        message.encode(&mut self.outgoing)?;
        if self.outgoing.len() <= MOST_INLINE {
            return self.write(&self.outgoing, files);
        }
        if self.outgoing.len() as u64 > MOST {
            return Err(too_long());
        }
        let mut file = File::from(memfd_create("jitney-message", MemfdFlags::CLOEXEC)?);
        file.write_all(self.outgoing.get(1..).unwrap_or(&[]))?;
        let mut all = vec![file.as_fd()];
        all.extend(files);
        self.write(&[IN_A_FILE], &all)
    }

    fn write(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES + 1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other("too many files for one message"));
        }
        let bytes = [IoSlice::new(bytes)];
        loop {
            match sendmsg(&self.socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message and its files. `UnexpectedEof` if there is nobody any more, `WouldBlock` if
    /// patience ends. Where [`is_shortage`] the message is lost, and the next may come.
    pub(super) fn receive<M: Message + Default>(&mut self) -> io::Result<(M, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES + 1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let (length, flags) = self.read(&mut ancillary)?;
        let mut files = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                files.extend(came);
            }
        }
        if flags.contains(ReturnFlags::CTRUNC) && files.len() <= MOST_FILES {
            // There was room for more, but this process may have no more.
            return Err(Errno::MFILE.into());
        }
        if flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let received = self.incoming.get(..length).unwrap_or(&[]);
        match received.split_first() {
            Some((&HERE, message)) => Ok((M::decode(message)?, files)),
            Some((&IN_A_FILE, _)) if !files.is_empty() => {
                let file = files.remove(0);
                Ok((M::decode(&*content(file)?)?, files))
            }
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read(
        &mut self,
        ancillary: &mut RecvAncillaryBuffer<'_>,
    ) -> io::Result<(usize, ReturnFlags)> {
        loop {
            let mut buffers = [IoSliceMut::new(&mut self.incoming)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.socket, &mut buffers, ancillary, flags) {
                Ok(received) => return Ok((received.bytes, received.flags)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether this process, or the machine, has no descriptor left for a file that came.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|code| short.contains(&code))
}

fn too_long() -> io::Error {
    io::Error::other(format!("a message of more than {MOST} bytes"))
}

/// All that is in a file, if that is no more than a message may be.
fn content(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut content = Vec::new();
    // Whoever sent it may write to it still.
    if file.take(MOST + 1).read_to_end(&mut content)? as u64 > MOST {
        return Err(too_long());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::super::message::{Load, Numbers};
    use super::*;

    fn pair() -> (Channel, Channel) {
        let (own, other) = Channel::pair().unwrap();
        (own, Channel::over(other))
    }

    #[test]
    fn messages_of_any_length_come_whole_with_their_files() {
        let (mut one, mut other) = pair();
        for length in [0, 1, MOST_INLINE, 10 * MOST_INLINE] {
            let load = Load {
                policy: "x".repeat(length),
                ..Load::default()
            };
            let file = File::open("/dev/null").unwrap();
            one.send(&load, &[file.as_fd(), file.as_fd()]).unwrap();
            one.send(&Numbers::default(), &[]).unwrap();
            let (came, files): (Load, _) = other.receive().unwrap();
            assert_eq!((came, files.len()), (load, 2));
            let (_, files): (Numbers, _) = other.receive().unwrap();
            assert!(files.is_empty());
        }
    }

    #[test]
    fn the_end_and_the_end_of_patience_are_told_apart() {
        let (one, mut other) = pair();
        other.set_patience(Some(Duration::from_millis(2))).unwrap();
        let kind = |other: &mut Channel| other.receive::<Numbers>().unwrap_err().kind();
        assert_eq!(kind(&mut other), io::ErrorKind::WouldBlock);
        drop(one);
        assert_eq!(kind(&mut other), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (one, mut other) = pair();
        for bytes in [&[HERE, 0xff][..], &[IN_A_FILE], &[9]] {
            one.write(bytes, &[]).unwrap();
            let error = other.receive::<Numbers>().unwrap_err();
            assert!(error.kind() != io::ErrorKind::UnexpectedEof, "{error}");
        }
    }

    #[test]
    fn what_is_longer_than_a_message_may_be_is_refused() {
        let (one, mut other) = pair();
        let endless = File::open("/dev/zero").unwrap();
        one.write(&[IN_A_FILE], &[endless.as_fd()]).unwrap();
        let error = other.receive::<Numbers>().unwrap_err().to_string();
        assert!(error.contains("of more than 67108864 bytes"), "{error}");
        // The same of one that would be too long to be read.
        let (mut one, _) = pair();
        let load = Load {
            policy: "x".repeat(MOST as usize),
            ..Load::default()
        };
        let error = one.send(&load, &[]).unwrap_err().to_string();
        assert!(error.contains("of more than"), "{error}");
    }

    #[test]
    fn more_files_than_a_message_has_are_refused() {
        let (one, mut other) = pair();
        let file = File::open("/dev/null").unwrap();
        one.write(&[HERE], &[file.as_fd(); MOST_FILES + 1]).unwrap();
        let (_, files): (Numbers, _) = other.receive().unwrap();
        assert_eq!(files.len(), MOST_FILES + 1);
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2 * MOST_FILES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd(); 2 * MOST_FILES];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        let bytes = [IoSlice::new(&[HERE])];
        sendmsg(&one.socket, &bytes, &mut ancillary, SendFlags::empty()).unwrap();
        let error = other.receive::<Numbers>().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
