//! Owns what stands in for the server's `sync`: the same interface over loom's types. The swap is a
//! lock around a pointer, as loom cannot run arc-swap: that arc-swap itself keeps its word is not
//! shown here. What is: a copy is changed only while nobody reads it, which loom watches through a
//! cell beside the value, for reads and writes that nothing orders.

use std::ops::Deref;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;

pub use loom::sync::Arc;
pub use loom::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
struct Watched<T> {
    value: T,
    access: UnsafeCell<()>,
}

impl<T: Default> Default for Watched<T> {
    fn default() -> Watched<T> {
        Watched { value: T::default(), access: UnsafeCell::new(()) }
    }
}

#[derive(Debug)]
pub struct Twin<T>(Arc<Watched<T>>);

#[derive(Debug)]
pub struct Swap<T>(Arc<Mutex<Arc<Watched<T>>>>);

#[derive(Debug)]
pub struct Loaded<T>(Arc<Watched<T>>);

impl<T: Default> Default for Twin<T> {
    fn default() -> Twin<T> {
        Twin(Arc::new(Watched::default()))
    }
}

impl<T> Twin<T> {
    pub fn get_mut(&mut self) -> Option<&mut T> {
        let watched = Arc::get_mut(&mut self.0)?;
        watched.access.with_mut(|_| ());
        Some(&mut watched.value)
    }
}

impl<T: Default> Default for Swap<T> {
    fn default() -> Swap<T> {
        Swap(Arc::new(Mutex::new(Arc::new(Watched::default()))))
    }
}

impl<T> Clone for Swap<T> {
    fn clone(&self) -> Swap<T> {
        Swap(Arc::clone(&self.0))
    }
}

impl<T> Swap<T> {
    pub fn load(&self) -> Loaded<T> {
        Loaded(Arc::clone(&self.0.lock().expect("nobody panics and goes on")))
    }

    pub fn swap(&self, next: Twin<T>) -> Twin<T> {
        let mut published = self.0.lock().expect("nobody panics and goes on");
        Twin(std::mem::replace(&mut published, next.0))
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.access.with(|_| ());
        &self.0.value
    }
}
