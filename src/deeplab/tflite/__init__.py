"""The flatbuffer of a ``.tflite``: read, understood, edited, made leaner; nobody else knows it."""
