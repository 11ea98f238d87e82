"""Moving pictures: frames in, steady masks, frames out (needs the extra ``video``)."""
