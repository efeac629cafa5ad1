"""Bytes to records, and records to the lines a model reads. Pure: no I/O, no clock.

bytes    -> values   a codec, one module a format (json.py, avro.py, ...)
value    -> records  a mapping, compiled from its table to Python (mapping.py); before it
                     envelopes (unwrap.py), in it units (units.py), items that carry a
                     name each (pivot.py); ready-made ones in presets/
record   -> line     a text codec, one module a record type (text_ohlcv.py, ...)

The one file access is reading a packaged preset; schemas and births are handed in. Nothing
here raises on data except a codec, whose DecodeFault says where; a wrong configuration
raises ConfigError when it is loaded. May import flashfeed.models alone. Read codec.py
first, then mapping.py and text.py.
"""
