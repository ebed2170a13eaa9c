/* BOINC's own build makes a config.h, which applications include; nothing of it is needed here. */
