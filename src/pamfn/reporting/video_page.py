def video_page(*a, **k): return "x"
