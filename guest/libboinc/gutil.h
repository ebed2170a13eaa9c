/* BOINC's api/gutil.h draws with OpenGL. A guest has no screen, so only what needs none is here:
 * colours, for applications that keep them in the memory that they share with their graphics. */
#ifndef BOINCVM_GUTIL_H
#define BOINCVM_GUTIL_H

#ifdef __cplusplus
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define TEXT_LEFT 0
#define TEXT_CENTER 1
#define TEXT_RIGHT 2
#define ALIGN_BOTTOM 0
#define ALIGN_CENTER 1
#define ALIGN_TOP 2

struct COLOR { /* each 0 to 1 */
    float r;
    float g;
    float b;
    float a;
    COLOR(float red = 0, float green = 0, float blue = 0, float alpha = 0)
        : r(red), g(green), b(blue), a(alpha) {}
};

/* A colour of hue, lightness and saturation, each 0 to 1; alpha becomes 1. */
inline void HLStoRGB(double hue, double lightness, double saturation, COLOR &color) {
    double high = lightness <= 0.5 ? lightness * (1 + saturation)
                                   : lightness + saturation - lightness * saturation;
    double low = 2 * lightness - high;
    auto part = [=](double place) { /* up, flat, down, flat: by sixths of the circle */
        place = 6 * (place - std::floor(place));
        double share = place < 1 ? place : place < 3 ? 1 : place < 4 ? 4 - place : 0;
        return static_cast<float>(low + (high - low) * share);
    };
    color = COLOR(part(hue + 1.0 / 3), part(hue), part(hue - 1.0 / 3), 1);
}
#endif
#endif
