"""Files of other machines: s3://, gs://, https:// and whatever else fsspec knows.

Whoever reads or writes asks :func:`deeplab.remote.address.find_address` first. `store` has the
bytes, `copies` what is kept of them in the cache.
"""
