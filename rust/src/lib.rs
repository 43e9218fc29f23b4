//! The kernel: ticks of one partition in, candles out. No I/O, no clock, no threads, no Kafka.
//!
//! The way of a tick: [`decode`] reads the record over [`scan`], [`time`] its event time, [`session`] says where it
//! belongs, [`fold`] puts it into the windows of [`window`], [`close`] picks what is due, [`encode`]
//! writes it. [`book`] holds the state, [`elapsed`] and [`witness`] say whose time counts, [`forget`] what is held no longer,
//! and [`state`] dumps and loads it. Only [`bindings`] knows Python.

#![cfg_attr(fuzzing, allow(missing_docs))]

mod bindings;
pub mod book;
mod close;
mod decode;
mod elapsed;
mod encode;
mod fold;
mod forget;
mod number;
pub mod rules;
mod scan;
mod session;
mod state;
mod time;
mod window;
mod windows;
mod witness;

/// What `rust/fuzz` drives beside the book.
#[cfg(fuzzing)]
pub use {
    decode::{Reason, Venues, Verdict, judge},
    session::{Schedule, Season},
};
