//! A hash tree over a few leaves, as RFC 9162 §2.1 has it: one signature over its root stands for all of them, and each leaf
//! is proved by the hashes beside its way up.
//!
//! A leaf is hashed after a byte 0 and two nodes after a byte 1, so a node is never taken for a leaf.

use crate::chain::{Bytes, Hash};
use sha2::{Digest, Sha256};

/// Hashes beside a way up at most: a tree has fewer than 2^32 leaves.
pub const PATH_MAX: usize = 32;

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(leaf);
    Bytes(hash.finalize().into())
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left.0);
    hash.update(right.0);
    Bytes(hash.finalize().into())
}

/// A tree, from the hashes of its leaves up to its root.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The leaves, then the nodes above them, and so on. What has nobody beside it goes up as it is.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// A tree over these leaves; `None` without any.
    pub fn over(leaves: Vec<Hash>) -> Option<Self> {
        if leaves.is_empty() {
            return None;
        }
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = level.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                _ => pair[0],
            });
            levels.push(above.collect());
        }
        Some(Self { levels })
    }

    /// Leaves in it.
    pub fn size(&self) -> u32 {
        self.levels[0].len() as u32
    }

    /// Its root.
    pub fn root(&self) -> Hash {
        self.levels[self.levels.len() - 1][0]
    }

    /// The hashes beside the way from a leaf to the root, from below.
    pub fn path(&self, index: u32) -> Vec<Hash> {
        let mut at = index as usize;
        let mut path = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            path.extend(level.get(at ^ 1));
            at /= 2;
        }
        path
    }
}

/// The root to which a leaf leads, at its place in a tree of a size, by the hashes beside its way. `None` when so many hashes
/// do not fit that place.
pub fn root_of(leaf: Hash, index: u32, size: u32, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for beside in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            hash = node_hash(beside, &hash);
            while at % 2 == 0 && at != 0 {
                (at, last) = (at / 2, last / 2);
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        (at, last) = (at / 2, last / 2);
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    /// The definition in RFC 9162 §2.1.1: split where the left part is the largest power of two below the size.
    fn defined(leaves: &[Hash]) -> Hash {
        if let [one] = leaves {
            return *one;
        }
        let left = leaves.len().next_power_of_two() / 2;
        node_hash(&defined(&leaves[..left]), &defined(&leaves[left..]))
    }

    #[test]
    fn the_root_is_the_defined_one_and_every_leaf_leads_to_it() {
        assert!(Tree::over(Vec::new()).is_none());
        for size in 1..=70 {
            let tree = Tree::over(leaves(size)).unwrap();
            assert_eq!(tree.root(), defined(&leaves(size)), "{size}");
            for index in 0..size {
                let path = tree.path(index);
                assert!(path.len() <= PATH_MAX);
                assert_eq!(
                    root_of(leaves(size)[index as usize], index, size, &path),
                    Some(tree.root()),
                    "{index}/{size}"
                );
            }
        }
    }

    /// The hash of no bytes as a leaf, from RFC 6962's test vectors.
    #[test]
    fn the_empty_leaf_is_that_of_the_standard() {
        let expect = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf_hash(b"").to_string(), expect);
    }

    proptest! {
        #[test]
        fn the_way_of_another_leaf_is_refused(size in 2_u32..200, at: u32, other: u32) {
            let (at, other) = (at % size, other % size);
            let tree = Tree::over(leaves(size)).unwrap();
            let root = Some(tree.root());
            let leaf = leaves(size)[at as usize];
            prop_assert_eq!(root_of(leaf, at, size, &tree.path(at)), root);
            if other != at {
                prop_assert_ne!(root_of(leaf, other, size, &tree.path(other)), root);
                prop_assert_ne!(root_of(leaf, at, size, &tree.path(other)), root);
            }
            // A way that is too long, or too short.
            let mut path = tree.path(at);
            path.push(leaf);
            prop_assert_ne!(root_of(leaf, at, size, &path), root);
            path.truncate(path.len() - 2);
            prop_assert_ne!(root_of(leaf, at, size, &path), root);
            prop_assert_eq!(root_of(leaf, size, size, &tree.path(at)), None);
        }
    }
}
