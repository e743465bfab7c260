//! Owns filters as a client in another language would write them, from the wire contract and not
//! from the server's code. Its version 1 never moves an entry: it places fewer events than it
//! could, as a maker may.

use xxhash_rust::xxh3::xxh3_64_with_seed;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 32 bytes: SHA-256 of a value, or of an identifier, 0 and that.
pub(crate) type Digest = [u8; 32];

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

/// What an event counts as over the whole server.
pub(crate) fn digest_of_server(id: &str, value: &str) -> Digest {
    digest(&[id.as_bytes(), b"\0", &digest(value.as_bytes())].concat())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for letter in 0..=group.len() {
            text.push(char::from(LETTERS[bits >> (18 - 6 * letter) & 63]));
        }
    }
    text
}

pub(crate) fn from_base64url(text: &str) -> Vec<u8> {
    let values = text.bytes().map(|letter| {
        LETTERS.iter().position(|l| *l == letter).expect("the server sends base64url")
    });
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0, 0);
    for value in values {
        (bits, held) = (bits << 6 | value, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

pub(crate) fn head(version: u8, size: u32, count: u64, seed: u64) -> Vec<u8> {
    let mut bytes = vec![version, 0, 0, 0];
    bytes.extend(size.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(seed.to_le_bytes());
    bytes
}

fn keys(digest: &Digest, seed: u64) -> (u64, u64) {
    let a = xxh3_64_with_seed(digest, seed);
    (a, xxh3_64_with_seed(&a.to_le_bytes(), seed))
}

pub(crate) fn entry(version: u8, digest: &Digest, seed: u64) -> String {
    let (a, _) = keys(digest, seed);
    format!("{:016x}", if version == 1 { (a >> 16).max(1) } else { a })
}

/// A version 1 filter.
pub(crate) struct Bloom {
    pub(crate) count: u64,
    pub(crate) seed: u64,
    buckets: Vec<[u64; 4]>,
}

impl Bloom {
    pub(crate) fn new(count: u64, seed: u64) -> Bloom {
        Bloom { count, seed, buckets: vec![[0; 4]; (count * 21 / 80 + 1) as usize] }
    }

    /// Of the digests, with those that found no room.
    pub(crate) fn of(digests: &[Digest], count: u64, seed: u64) -> (Bloom, Vec<Digest>) {
        let mut bloom = Bloom::new(count, seed);
        let unplaced = digests.iter().filter(|digest| !bloom.add(digest)).copied().collect();
        (bloom, unplaced)
    }

    /// What the server sent.
    pub(crate) fn decode(text: &str) -> Bloom {
        let bytes = from_base64url(text);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let mut bloom = Bloom::new(word(8), word(16));
        assert_eq!(bytes[..24], head(1, bloom.buckets.len() as u32, bloom.count, bloom.seed));
        assert_eq!(bytes.len(), 24 + 24 * bloom.buckets.len());
        for (slot, bytes) in bloom.buckets.as_flattened_mut().iter_mut().zip(bytes[24..].chunks(6))
        {
            *slot = bytes.iter().rev().fold(0, |slot, byte| slot << 8 | u64::from(*byte));
        }
        bloom
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        let (fingerprint, places) = self.place(digest);
        places.iter().any(|bucket| self.buckets[*bucket].contains(&fingerprint))
    }

    pub(crate) fn entries(&self) -> usize {
        self.fingerprints().count()
    }

    pub(crate) fn fingerprints(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.as_flattened().iter().copied().filter(|slot| *slot != 0)
    }

    pub(crate) fn encode(&self) -> String {
        let mut bytes = head(1, self.buckets.len() as u32, self.count, self.seed);
        for slot in self.buckets.as_flattened() {
            bytes.extend(&slot.to_le_bytes()[..6]);
        }
        base64url(&bytes)
    }

    fn add(&mut self, digest: &Digest) -> bool {
        let (fingerprint, places) = self.place(digest);
        for bucket in places {
            if let Some(slot) = self.buckets[bucket].iter_mut().find(|slot| **slot == 0) {
                *slot = fingerprint;
                return true;
            }
        }
        false
    }

    fn place(&self, digest: &Digest) -> (u64, [usize; 2]) {
        let (a, b) = keys(digest, self.seed);
        let scale = |half: u64| ((half * self.buckets.len() as u64) >> 32) as usize;
        ((a >> 16).max(1), [scale(b & 0xffff_ffff), scale(b >> 32)])
    }
}

/// A version 2 filter.
pub(crate) fn sketch(digests: &[Digest], cells: u32, seed: u64) -> String {
    let mut sums = vec![(0_u64, 0_u32); cells as usize];
    for digest in digests {
        let (a, b) = keys(digest, seed);
        let (mut i, mut r) = (0, b);
        while i < sums.len() {
            sums[i].0 ^= a;
            sums[i].1 ^= (b >> 32) as u32;
            r = r.wrapping_mul(0xda94_2042_e4dd_58b5);
            let gap = (i as f64 + 1.5) * (2_f64.powi(32) / (r as f64 + 1.0).sqrt() - 1.0);
            i += gap.ceil().max(1.0) as usize;
        }
    }
    let mut bytes = head(2, cells, digests.len() as u64, seed);
    for (a, check) in sums {
        bytes.extend(a.to_le_bytes());
        bytes.extend(check.to_le_bytes());
    }
    base64url(&bytes)
}
