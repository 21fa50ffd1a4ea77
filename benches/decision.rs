//! What the scheduler's decisions cost on a large fleet: `cargo bench --bench decision`.
//!
//! 64 devices, each a group of its own, and 100,000 requests with deadlines queued all the time. One
//! round is a batch: its arrivals, its departure, and what it took.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jitney::clock::Moment;
use jitney::scheduler::{Batch, Batcher, Item, Policy, ShapeClass};

const QUEUED: usize = 100_000;
const DEVICES: usize = 64;
const ROWS: usize = 32;
const ROUNDS: usize = 200_000;

/// Counts what is asked of the allocator that the server uses.
struct Counting(mimalloc::MiMalloc);

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to mimalloc as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

fn main() {
    println!("| shapes | p50 | p99 of a request's share | allocations in a decision |");
    println!("|---|---|---|---|");
    for classes in [1, 8, 64] {
        measure(classes);
    }
}

#[allow(clippy::disallowed_methods)] // it measures
fn measure(classes: u64) {
    let policy = Policy {
        max_batch_size: ROWS,
        max_queue_size: 2 * QUEUED,
        ..Policy::default()
    };
    let mut batcher = Batcher::new(policy, &[1; DEVICES]);
    let mut batch = Batch::default();
    let mut arrivals = 0_u64;
    let mut arrive = |batcher: &mut Batcher| {
        arrivals += 1;
        let now = Moment::from_nanos(arrivals * 1_000);
        // Deadlines in no order, none of which passes.
        let slack = arrivals.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let item = Item {
            rows: 1,
            length: 1,
            class: ShapeClass(arrivals % classes),
            deadline: Some(now + Duration::from_secs(60) + Duration::from_nanos(slack)),
            level: 0,
        };
        let _ = black_box(batcher.admit(now, item));
        now
    };
    for _ in 0..QUEUED {
        arrive(&mut batcher);
    }
    let mut shares = Vec::with_capacity(ROUNDS);
    let mut counted = 0;
    for round in 0..ROUNDS + ROUNDS / 10 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let start = Instant::now();
        let mut now = Moment::ORIGIN;
        for _ in 0..ROWS {
            now = arrive(&mut batcher);
        }
        let group = round % DEVICES;
        black_box(batcher.poll(now, group, &mut batch));
        let took = Duration::from_micros(2000 + batch.load.rows as u64 * 100);
        batcher.completed(now, group, batch.load, took);
        let elapsed = start.elapsed();
        // The first tenth fills what is used again.
        if round >= ROUNDS / 10 {
            shares.push(elapsed.as_nanos() as f64 / ROWS as f64);
            counted += ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
    }
    shares.sort_by(f64::total_cmp);
    let at = |share: f64| shares.get((share * shares.len() as f64) as usize).copied();
    println!(
        "| {classes} | {:.0} ns | {:.0} ns | {:.4} |",
        at(0.5).unwrap_or(f64::NAN),
        at(0.99).unwrap_or(f64::NAN),
        counted as f64 / shares.len() as f64
    );
}
