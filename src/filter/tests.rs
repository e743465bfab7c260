//! Owns what is tested of both versions together: the vectors of another implementation, every way
//! to be malformed, damaged filters. The rest stands beside each version.

use serde_json::Value;

use super::*;

/// SplitMix64 (Steele, Lea, Flood 2014): the same sequence in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn hash(&mut self) -> Hash {
        let mut bytes = [0; 32];
        for word in bytes.as_chunks_mut().0 {
            *word = self.next().to_le_bytes();
        }
        Hash(bytes)
    }

    pub(super) fn hashes(&mut self, count: usize) -> Vec<Hash> {
        (0..count).map(|_| self.hash()).collect()
    }
}

fn vectors() -> Vec<Value> {
    let text = include_str!("../../tests/data/filters.json");
    let mut file: Value = serde_json::from_str(text).unwrap();
    let Value::Array(filters) = file["filters"].take() else { panic!("a list of filters") };
    filters
}

fn encoded(vector: &Value) -> &str {
    vector["filter"].as_str().unwrap()
}

fn hashes_of(vector: &Value) -> Vec<Hash> {
    let prefix = vector["prefix"].as_str().unwrap();
    (0..vector["n"].as_u64().unwrap()).map(|i| Hash::of(&format!("{prefix}-{i}"))).collect()
}

fn encode(filter: &Filter) -> String {
    match filter {
        Filter::InverseBloom(filter) => filter.encode(),
        Filter::Sketch(sketch) => sketch.encode(),
    }
}

fn letters(bytes: &[u8]) -> String {
    let mut text = String::new();
    base64url::encode(bytes, &mut text);
    text
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; text.len() / 4 * 3];
    base64url::decode(text.as_bytes(), &mut bytes).unwrap();
    bytes
}

fn check_inverse_bloom(vector: &Value, filter: InverseBloom) {
    assert_eq!(filter.count(), vector["count"].as_u64().unwrap());
    let hashes = hashes_of(vector);
    assert!(hashes.iter().all(|hash| filter.contains(hash)));
    let absent = vector["absent"].as_array().unwrap();
    assert_eq!(absent.len(), 50);
    for value in absent {
        assert!(!filter.contains(&Hash::of(value.as_str().unwrap())), "{value}");
    }
    assert_eq!(filter.entries().count(), hashes.len());
    let mut matching = Matching::new(filter);
    assert_eq!(matching.unmatched(0).count(), hashes.len());
    assert!(hashes.iter().all(|hash| matching.contains(hash)));
    assert_eq!(matching.unmatched(0).count(), 0);
}

fn check_sketch(vector: &Value, sketch: Sketch) {
    let hashes = hashes_of(vector);
    assert_eq!(sketch.count(), hashes.len() as u64);
    assert_eq!(u64::from(sketch.size()), vector["cells"].as_u64().unwrap());
    let mut same = Sketch::new(sketch.size(), sketch.seed());
    hashes.iter().rev().for_each(|hash| same.add(hash));
    assert_eq!(same, sketch);
    let mut difference = sketch.into_difference();
    hashes.iter().for_each(|hash| difference.add(hash));
    assert_eq!(difference.peel().unwrap().unclaimed(0).count(), 0);
}

#[test]
fn filters_of_another_implementation_mean_here_what_they_mean_there() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 10);
    for vector in &vectors {
        let filter = Filter::decode(encoded(vector)).unwrap();
        assert_eq!(encode(&filter), encoded(vector));
        assert_eq!(format!("{:016x}", filter.seed()), vector["seed"].as_str().unwrap());
        match filter {
            Filter::InverseBloom(filter) => check_inverse_bloom(vector, filter),
            Filter::Sketch(sketch) => check_sketch(vector, sketch),
        }
    }
}

/// A well-formed filter: one bucket, or four cells, of zeros.
fn blank(version: u8) -> Vec<u8> {
    let (size, body) = if version == 1 { (1, 24) } else { (4, 48) };
    let mut bytes = vec![0; HEAD_BYTES + body];
    bytes[0] = version;
    bytes[4] = size;
    bytes
}

/// A blank filter with other bytes at a place.
fn with(version: u8, at: usize, changed: &[u8]) -> String {
    let mut bytes = blank(version);
    bytes[at..at + changed.len()].copy_from_slice(changed);
    letters(&bytes)
}

#[test]
fn what_is_wrong_with_a_text_is_said() {
    let bloom = letters(&blank(1));
    let sketch = letters(&blank(2));
    let cut = |letters| sketch[..letters].to_owned();
    for (text, message) in [
        (String::new(), "an empty filter is malformed"),
        (bloom.clone() + "=", "base64url stands here without padding"),
        ("====".to_owned(), "base64url stands here without padding"),
        (cut(41), "41 letters of base64url are no whole number of bytes"),
        ("+".to_owned() + &sketch[1..], "'+' at 0 is not of base64url"),
        (bloom[..63].to_owned() + "/", "'/' at 63 is not of base64url"),
        (bloom[..62].to_owned() + "ü", "'\\xc3' at 62 is not of base64url"),
        (bloom[..31].to_owned() + "ü" + &bloom[33..], "'\\xc3' at 31 is not of base64url"),
        (cut(2), "length 1 is less than the head's 24"),
        (cut(31), "length 23 is less than the head's 24"),
        (with(1, 0, &[0]), "version 0 is not known"),
        (with(1, 0, &[3]), "version 3 is not known"),
        (with(1, 1, &[128]), "flags 128 are not known"),
        (with(2, 2, &[0, 1]), "reserved 256 is not 0"),
        (with(1, 8, &2_000_000_u64.to_le_bytes()), "count 2000000 is over the limit of 1048576"),
        (with(1, 8, &1_048_577_u64.to_le_bytes()), "count 1048577 is over the limit of 1048576"),
        (with(1, 8, &[255; 8]), "count 18446744073709551615 is over the limit of 1048576"),
        (with(1, 4, &[0]), "size 0 does not follow from count 0"),
        (with(1, 8, &[4]), "size 1 does not follow from count 4"),
        (with(1, 8, &1_048_576_u64.to_le_bytes()), "size 1 does not follow from count 1048576"),
        (with(2, 4, &[0]), "size 0 is below the least of 1"),
        (with(2, 4, &[1, 128]), "size 32769 is over the limit of 32768"),
        (with(2, 4, &[255; 4]), "size 4294967295 is over the limit of 32768"),
        (with(2, 4, &[0, 128]), "length 72 does not follow from size 32768"),
        (with(2, 4, &[3]), "length 72 does not follow from size 3"),
        (cut(32), "length 24 does not follow from size 4"),
        (cut(42), "length 31 does not follow from size 4"),
        (cut(95), "length 71 does not follow from size 4"),
        (sketch.clone() + "AA", "length 73 does not follow from size 4"),
        (sketch.clone() + "AB", "length 73 does not follow from size 4"),
        (sketch.clone() + "AAA", "length 74 does not follow from size 4"),
        (bloom.clone() + "AAAA", "length 51 does not follow from size 1"),
    ] {
        let error = Filter::decode(&text).expect_err(message);
        assert_eq!(error.to_string(), message, "{text}");
    }
}

#[test]
fn limits_are_within_what_is_taken() {
    let head = |version, size, count| Head { version, size, count, seed: 7 };
    for head in [
        head(Version::InverseBloom, 1, 0),
        head(Version::InverseBloom, 1, 3),
        head(Version::InverseBloom, 2, 4),
        head(Version::InverseBloom, 275_252, 1_048_576),
        head(Version::Sketch, 1, 0),
        head(Version::Sketch, 1, u64::MAX),
        head(Version::Sketch, 32_768, 0),
    ] {
        let text = head.encode_with(&vec![1; head.body_bytes()]);
        let filter = Filter::decode(&text).unwrap();
        assert_eq!((filter.count(), filter.seed()), (head.count, 7));
        assert!(filter.bytes() >= head.body_bytes());
        assert_eq!(encode(&filter), text);
    }
}

/// Of the vectors those of up to 200 events: each is damaged thousands of times.
fn short_vectors() -> Vec<Value> {
    let short = |vector: &Value| vector["n"].as_u64().unwrap() <= 200;
    vectors().into_iter().filter(short).collect()
}

/// Whatever it decodes to is usable, and is what was read.
fn check_use(filter: Filter, text: &str, own: &[Hash]) {
    assert_eq!(encode(&filter), text);
    match filter {
        Filter::InverseBloom(filter) => {
            let entries = filter.entries().count();
            let mut matching = Matching::new(filter);
            let contained = own.iter().filter(|hash| matching.contains(hash)).count();
            assert!(matching.unmatched(0).count() + contained >= entries);
        }
        Filter::Sketch(sketch) => {
            let size = sketch.size() as usize;
            let mut difference = sketch.into_difference();
            own.iter().for_each(|hash| difference.add(hash));
            let unclaimed = difference.peel().map_or(0, |peeled| peeled.unclaimed(0).count());
            assert!(unclaimed <= size);
        }
    }
}

#[test]
fn a_cut_filter_is_none() {
    for vector in &vectors() {
        let text = encoded(vector);
        for length in 0..text.len() {
            assert!(Filter::decode(&text[..length]).is_err(), "{length} of {text}");
        }
    }
}

#[test]
fn a_flipped_bit_is_an_error_in_the_head_and_another_filter_elsewhere() {
    for vector in &short_vectors() {
        let (original, own) = (bytes(encoded(vector)), hashes_of(vector));
        for bit in 0..original.len() * 8 {
            let mut flipped = original.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = letters(&flipped);
            let decoded = Filter::decode(&text);
            let count = u64::from_le_bytes(field(&flipped, 8));
            let valid = match bit / 8 {
                0..8 => false,
                8..16 if original[0] == 1 => {
                    let size = u64::from(u32::from_le_bytes(field(&original, 4)));
                    count <= 1_048_576 && count * 21 / 80 + 1 == size
                }
                _ => true,
            };
            assert_eq!(decoded.is_ok(), valid, "bit {bit} of {}", encoded(vector));
            if let Ok(filter) = decoded {
                check_use(filter, &text, &own);
            }
        }
    }
}

#[test]
fn a_flipped_bit_of_the_text_is_an_error_or_another_filter() {
    for vector in &vectors() {
        let original = encoded(vector).as_bytes();
        for bit in 0..original.len() * 8 {
            let mut flipped = original.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Bit 7 makes it no UTF-8, which no caller can hand over.
            let Ok(text) = String::from_utf8(flipped) else { continue };
            if let Ok(filter) = Filter::decode(&text) {
                assert_eq!(encode(&filter), text);
            }
        }
    }
}

#[test]
fn an_entry_is_printed_with_its_zeros() {
    for (entry, text) in [
        (0, "0000000000000000"),
        (0xfedc_ba98_7654, "0000fedcba987654"),
        (u64::MAX, "ffffffffffffffff"),
    ] {
        assert_eq!(Entry(entry).to_string(), text);
    }
}
