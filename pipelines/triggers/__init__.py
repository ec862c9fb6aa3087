"""What starts retraining without anybody asking: new data in a bucket."""
