"""From raw video to features: reading a video once, in step with its sound, and what describes its segments."""
