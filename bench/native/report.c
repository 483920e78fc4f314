/* SPDX-License-Identifier: MIT */
/* report.c - see report.h. */
#define _GNU_SOURCE

#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "chronicle.h"

typedef struct entry {
    const char *section;
    row row;
    curve curve; /* count 0: a row, or a note */
    char *note;  /* or NULL */
} entry;

static entry *entries;
static size_t entry_count;
static const char *section = "";

const double curve_percents[CURVE_POINTS] = {0,    10,    25,   50,    75,     90,    95,     97.5, 99,
                                             99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 99.999, 100};

/* In the table; the curve has them all. */
static int is_shown(size_t point)
{
    double percent = curve_percents[point];

    return percent == 50 || percent == 90 || percent == 99 || percent == 99.9 || percent == 99.99 || percent == 100;
}

static entry *new_entry(void)
{
    entries = realloc(entries, (entry_count + 1) * sizeof *entries);
    if (!entries)
        die("out of memory");
    memset(&entries[entry_count], 0, sizeof *entries);
    entries[entry_count].section = section;
    return &entries[entry_count++];
}

static void begin_section(const char *name, const char *how)
{
    section = name;
    printf("\n== %s\n%s\n\n", name, how);
}

void report_section_of_curves(const char *name, const char *how)
{
    begin_section(name, how);
    printf("%-34s %-5s %9s %6s ", "", "where", "due/s", "bytes");
    for (size_t i = 0; i < CURVE_POINTS; i++)
        if (is_shown(i))
            printf(" %8.6g%%", curve_percents[i]);
    putchar('\n');
}

void report_section(const char *name, const char *how)
{
    begin_section(name, how);
    printf("%-34s %-5s %-5s %6s  %9s %9s %9s %-4s  %8s  %s\n", "", "where", "cpus", "bytes", "min", "median", "max", "",
           "of raw", "goal");
}

static int reached(const row *r)
{
    return r->ratio_goal > 0 ? r->ratio.median <= r->ratio_goal : r->value.median >= r->value_goal;
}

void report_row(const row *r)
{
    new_entry()->row = *r;
    printf("%-34s %-5s %-5s ", r->name, r->where, r->distance);
    printf(r->bytes ? "%6u" : "%6.0u", r->bytes);
    printf("  %9.1f %9.1f %9.1f %-4s", r->value.min, r->value.median, r->value.max, r->unit);
    if (r->ratio.count)
        printf("  %7.2fx", r->ratio.median);
    else
        printf("  %8s", "");
    if (r->ratio_goal > 0)
        printf("  <= %.1fx %s", r->ratio_goal, reached(r) ? "reached" : "NOT REACHED");
    else if (r->value_goal > 0)
        printf("  >= %.0f %s %s", r->value_goal, r->unit, reached(r) ? "reached" : "NOT REACHED");
    putchar('\n');
    fflush(stdout);
}

void report_note(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        die("out of memory");
    va_end(arguments);
    new_entry()->note = text;
    printf("  %s\n", text);
    fflush(stdout);
}

void report_curve(const char *name, const char *where, unsigned rate, unsigned bytes, const histogram *h)
{
    curve *c = &new_entry()->curve;

    *c = (curve){.name = name, .where = where, .rate = rate, .bytes = bytes, .count = h->total};
    printf("%-34s %-5s %9u %6u ", name, where, rate, bytes);
    for (size_t i = 0; i < CURVE_POINTS; i++) {
        c->ns[i] = histogram_percentile(h, curve_percents[i]);
        if (is_shown(i))
            printf(" %9.0f", c->ns[i]);
    }
    putchar('\n');
    fflush(stdout);
}

/* ------------------------------------------------------------------------------------------- JSON */

static void put_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        if ((unsigned char)*text >= ' ')
            fputc(*text, out);
    }
    fputc('"', out);
}

static void put_text(FILE *out, const char *key, const char *text)
{
    fprintf(out, "\"%s\": ", key);
    put_string(out, text);
    fputs(", ", out);
}

static void put_spread(FILE *out, const char *prefix, const spread *s)
{
    fprintf(out, "\"%smin\": %.3f, \"%smedian\": %.3f, \"%smax\": %.3f", prefix, s->min, prefix, s->median, prefix,
            s->max);
}

static void put_curve(FILE *out, const curve *c)
{
    put_text(out, "name", c->name);
    put_text(out, "where", c->where);
    fprintf(out, "\"rate\": %u, \"bytes\": %u, \"count\": %llu, \"percentiles_ns\": {", c->rate, c->bytes,
            (unsigned long long)c->count);
    for (size_t i = 0; i < CURVE_POINTS; i++)
        fprintf(out, "%s\"%.8g\": %.0f", i ? ", " : "", curve_percents[i], c->ns[i]);
    fputs("}}", out);
}

static void put_entry(FILE *out, const entry *e)
{
    const row *r = &e->row;

    fputs("    {", out);
    put_text(out, "section", e->section);
    if (e->note) {
        fputs("\"note\": ", out);
        put_string(out, e->note);
        fputc('}', out);
        return;
    }
    if (e->curve.count) {
        put_curve(out, &e->curve);
        return;
    }
    put_text(out, "name", r->name);
    put_text(out, "where", r->where);
    put_text(out, "distance", r->distance);
    put_text(out, "unit", r->unit);
    fprintf(out, "\"bytes\": %u, \"rounds\": %zu, ", r->bytes, r->value.count);
    put_spread(out, "", &r->value);
    if (r->ratio.count) {
        fputs(", ", out);
        put_spread(out, "ratio_", &r->ratio);
    }
    if (r->ratio_goal > 0)
        fprintf(out, ", \"goal_ratio_at_most\": %.2f, \"reached\": %s", r->ratio_goal, reached(r) ? "true" : "false");
    else if (r->value_goal > 0)
        fprintf(out, ", \"goal_at_least\": %.2f, \"reached\": %s", r->value_goal, reached(r) ? "true" : "false");
    fputc('}', out);
}

static double taken_by_others;

void report_quiet(double percent)
{
    taken_by_others = percent;
}

static void put_machine(FILE *out)
{
    struct utsname u;
    char line[256] = "unknown";
    char processor[256] = "unknown";
    FILE *info = fopen("/proc/cpuinfo", "r");

    while (info && fgets(line, sizeof line, info))
        if (sscanf(line, "model name : %255[^\n]", processor) == 1)
            break;
    if (info)
        fclose(info);
    if (uname(&u) < 0)
        die("uname failed");
    fputs("  \"machine\": {", out);
    put_text(out, "processor", processor);
    put_text(out, "kernel", u.release);
    put_text(out, "architecture", u.machine);
    put_text(out, "compiler", __VERSION__);
    put_text(out, "crc32c", chron_crc32c_name());
    put_text(out, "library", chron_version());
    fprintf(out, "\"taken_by_others_percent\": %.2f, \"processors\": %u},\n", taken_by_others, processors());
}

void report_json(const char *path)
{
    FILE *out = fopen(path, "w");

    if (!out)
        die("cannot write %s: %s", path, strerror(errno));
    fputs("{\n", out);
    put_machine(out);
    fputs("  \"results\": [\n", out);
    for (size_t i = 0; i < entry_count; i++) {
        put_entry(out, &entries[i]);
        fputs(i + 1 < entry_count ? ",\n" : "\n", out);
    }
    fputs("  ]\n}\n", out);
    if (fclose(out) != 0)
        die("cannot write %s: %s", path, strerror(errno));
}
