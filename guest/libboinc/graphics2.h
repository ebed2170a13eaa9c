/* Applications include this for BOINC's screensaver; a guest has no screen, so it is empty. */
