//! How long who is at the other end of a connection may take: a while between requests, less for the head of one, and to read what goes back.
//!
//! A body has bounds of its own (`http`): the one who answers says when a head is whole, and when the next may come.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Between requests; longer than load balancers keep a connection that rests.
const IDLE: Duration = Duration::from_secs(75);
/// For the head of a request, from its first byte on.
pub(crate) const HEAD: Duration = Duration::from_secs(10);
/// To read a piece of an answer.
const READING: Duration = Duration::from_secs(30);

/// A connection whose other end is waited for so long and no longer.
pub(crate) struct Patient<S> {
    stream: S,
    /// Whether a request is being answered.
    answering: Arc<AtomicBool>,
    /// Whether some of a head has come.
    has_begun: bool,
    /// When a read shall have come.
    reading: Pin<Box<Sleep>>,
    /// When a write shall have gone, while one waits.
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// `answering` is set from a request's head on until its answer is there.
    pub(crate) fn new(stream: S, answering: Arc<AtomicBool>) -> Patient<S> {
        Patient { stream, answering, has_begun: false, reading: Box::pin(sleep(HEAD)), writing: None }
    }

    fn after_write<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.writing = None;
            return outcome;
        }
        let writing = self.writing.get_or_insert_with(|| Box::pin(sleep(READING)));
        ready!(writing.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if Pin::new(&mut self.stream).poll_read(context, buffer)?.is_ready() {
            if !self.answering.load(Relaxed) && !self.has_begun && buffer.filled().len() > before {
                self.has_begun = true;
                self.reading.as_mut().reset(Instant::now() + HEAD);
            }
            return Poll::Ready(Ok(()));
        }
        if self.answering.load(Relaxed) {
            // Whoever reads the body says how long that may take; then the next head may come.
            self.has_begun = false;
            self.reading.as_mut().reset(Instant::now() + IDLE);
        }
        ready!(self.reading.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // What goes out is an answer: after it a head may come again.
        self.has_begun = false;
        self.reading.as_mut().reset(Instant::now() + IDLE);
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.has_begun = false;
        self.reading.as_mut().reset(Instant::now() + IDLE);
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.after_write(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.after_write(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.after_write(context, outcome)
    }
}
