//! Reading and changing values: a reader of what is committed, and a transaction that collects changes
//! on top of it.

use super::ends::Ends;
use super::engine::{Changes, Engine};
use super::keys::{Key, Span};
use super::value::{self, Held, Stored};
use crate::store::{Order, StoreResult};
use reedi_protocol::Timestamp;
use std::ops::ControlFlow;

/// What is committed, as of one reading of the clock.
pub struct Reader<'e> {
    pub engine: &'e dyn Engine,
    pub now: Timestamp,
}

impl Reader<'_> {
    pub fn get<T: Stored>(&self, key: &Key) -> StoreResult<Option<T>> {
        let Some(bytes) = self.engine.get(key)? else { return Ok(None) };
        Ok(value::decode(&bytes, self.now)?.map(|held| held.value))
    }

    /// The first `limit` that `pick` makes something of.
    pub fn list<T: Stored, O>(
        &self,
        span: &Span,
        order: Order,
        limit: usize,
        mut pick: impl FnMut(&[u8], T) -> StoreResult<Option<O>>,
    ) -> StoreResult<Vec<O>> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.engine.scan(span, order, &mut |key, bytes| {
            if let Some(held) = value::decode(bytes, self.now)? {
                found.extend(pick(key, held.value)?);
            }
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }
}

/// What is known of what is committed under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    /// Nothing, so that nobody need look.
    NothingYet,
}

/// The changes of one job, on top of those of the jobs before it that will be committed with it.
pub struct Transaction<'g> {
    engine: &'g dyn Engine,
    earlier: &'g Changes,
    own: Changes,
    ends: Ends,
    now: Timestamp,
}

impl<'g> Transaction<'g> {
    pub fn new(engine: &'g dyn Engine, earlier: &'g Changes, now: Timestamp) -> Self {
        Self { engine, earlier, own: Changes::new(), ends: Ends::default(), now }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What it changed, and what of that ends.
    #[must_use]
    pub fn into_changes(self) -> (Changes, Ends) {
        (self.own, self.ends)
    }

    pub fn get<T: Stored>(&self, key: &Key) -> StoreResult<Option<Held<T>>> {
        self.get_from(Standing::Unknown, key)
    }

    fn get_from<T: Stored>(&self, standing: Standing, key: &Key) -> StoreResult<Option<Held<T>>> {
        match self.own.get(key).or_else(|| self.earlier.get(key)) {
            Some(Some(bytes)) => value::decode(bytes, self.now),
            Some(None) => Ok(None),
            None if standing == Standing::NothingYet => Ok(None),
            None => match self.engine.get(key)? {
                Some(bytes) => value::decode(&bytes, self.now),
                None => Ok(None),
            },
        }
    }

    /// Puts a value, and notes its end.
    pub fn put<T: Stored>(&mut self, key: Key, held: &Held<T>) -> StoreResult<()> {
        let bytes = value::encode(held)?;
        if let Some(at) = held.expires_at {
            self.ends.add(at, key.clone());
        }
        self.own.insert(key, Some(bytes));
        Ok(())
    }

    pub fn delete(&mut self, key: Key) {
        self.own.insert(key, None);
    }

    /// Replaces what stands by what `change` makes of it; writes nothing where that is the same.
    pub fn update<T: Stored>(
        &mut self,
        key: Key,
        change: impl FnOnce(Option<&Held<T>>) -> Held<T>,
    ) -> StoreResult<()> {
        self.update_from(Standing::Unknown, key, change)
    }

    /// As [`Self::update`], where it is known what is committed.
    pub fn update_from<T: Stored>(
        &mut self,
        standing: Standing,
        key: Key,
        change: impl FnOnce(Option<&Held<T>>) -> Held<T>,
    ) -> StoreResult<()> {
        let old = self.get_from::<T>(standing, &key)?;
        let new = change(old.as_ref());
        let same = old.is_some_and(|old| old.value == new.value && old.expires_at == new.expires_at);
        if same { Ok(()) } else { self.put(key, &new) }
    }
}
