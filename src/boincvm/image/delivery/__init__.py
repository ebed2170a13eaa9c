"""Ship images from a static web server, and update them by the difference. See docs/images.md."""
