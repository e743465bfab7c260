//! Owns what threads share beside channels: counters, and the swap of the index. Called by `held`
//! and `index::shadow`. tests/loom puts another file in its place, made of loom's types, so that the
//! very code of those two is run there under every order that the memory model allows.

use std::ops::Deref;

use arc_swap::{ArcSwap, Guard};

pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicUsize, Ordering};

/// One of two copies: whoever has it alone may change it.
#[derive(Debug, Default)]
pub struct Twin<T>(Arc<T>);

/// The copy that is published.
#[derive(Debug)]
pub struct Swap<T>(Arc<ArcSwap<T>>);

/// The copy that was published when this was made.
#[derive(Debug)]
pub struct Loaded<T>(Guard<Arc<T>>);

impl<T> Twin<T> {
    /// `None` while somebody has it loaded.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        Arc::get_mut(&mut self.0)
    }
}

impl<T: Default> Default for Swap<T> {
    fn default() -> Swap<T> {
        Swap(Arc::new(ArcSwap::from_pointee(T::default())))
    }
}

impl<T> Clone for Swap<T> {
    fn clone(&self) -> Swap<T> {
        Swap(Arc::clone(&self.0))
    }
}

impl<T> Swap<T> {
    pub fn load(&self) -> Loaded<T> {
        Loaded(self.0.load())
    }

    /// Publishes the copy, and hands back the one that was.
    pub fn swap(&self, next: Twin<T>) -> Twin<T> {
        Twin(self.0.swap(next.0))
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
