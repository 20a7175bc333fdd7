"""The two towers: made by OpenCLIP from a name, loaded safely, made faster without changing a result, saved so that OpenCLIP loads them back."""
