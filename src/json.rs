//! Owns the JSON layer: how a selection is answered as one JSON reply. Readers write it page by
//! page, the hub from memory. Knows nothing of HTTP or of where events come from.

use crate::event::{Cursor, Seq};

/// Up to and including the bracket that opens `items`.
pub fn write_reply_start(out: &mut Vec<u8>, reset: bool) {
    out.extend_from_slice(if reset { b"{\"reset\":true,\"items\":[" } else { b"{\"items\":[" });
}

/// Up to and including the bracket that opens the item's `events`. `place` is the item's in the
/// reply.
pub fn write_item_start(out: &mut Vec<u8>, place: usize, id: &str, count: u64) {
    if place > 0 {
        out.push(b',');
    }
    out.extend_from_slice(b"{\"id\":");
    write_string(out, id);
    out.extend_from_slice(b",\"count\":");
    out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    out.extend_from_slice(b",\"events\":[");
}

pub fn write_event(out: &mut Vec<u8>, seq: Seq, value: &str) {
    out.extend_from_slice(b"{\"seq\":");
    out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
    out.extend_from_slice(b",\"value\":");
    write_string(out, value);
    out.push(b'}');
}

pub fn write_item_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}");
}

pub fn write_reply_end(out: &mut Vec<u8>, cursor: Cursor, more: bool) {
    out.extend_from_slice(b"],\"cursor\":\"");
    cursor.write(out);
    out.extend_from_slice(b"\",\"more\":");
    out.extend_from_slice(if more { b"true}" } else { b"false}" });
}

pub fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

pub fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Epoch;

    #[test]
    fn the_parts_make_a_reply() {
        let mut out = Vec::new();
        write_reply_start(&mut out, true);
        write_item_start(&mut out, 0, "a\"", 2);
        write_event(&mut out, 4, "x\n");
        write_item_end(&mut out);
        write_item_start(&mut out, 1, "b", 0);
        write_item_end(&mut out);
        write_reply_end(&mut out, Cursor { seq: 4, epoch: Some(Epoch(10)) }, false);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"reset\":true,\"items\":[\
             {\"id\":\"a\\\"\",\"count\":2,\"events\":[{\"seq\":4,\"value\":\"x\\n\"}]},\
             {\"id\":\"b\",\"count\":0,\"events\":[]}],\
             \"cursor\":\"4.0000000a\",\"more\":false}"
        );
    }
}
