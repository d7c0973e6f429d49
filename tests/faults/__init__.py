"""What may go wrong from outside, brought about on purpose: campaigns that count what was lost or got wrong."""
