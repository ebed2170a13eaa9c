// Every function and class that the headers have for C++ alone; as every_function.c.
#include "boinc_api.h"
#include "boinc_zip.h"
#include "boinc_stdio.h"
#include "common_defs.h"
#include "coproc.h"
#include "graphics2.h"
#include "gutil.h"
#include "hostinfo.h"
#include "md5_file.h"
#include "mfile.h"
#include "miofile.h"
#include "parse.h"
#include "prefs.h"
#include "proc_control.h"
#include "procinfo.h"
#include "proxy_info.h"
#include "shmem.h"
#include "std_fixes.h"
#include "str_util.h"
#include "url.h"
#include "util.h"

#include "check.h"

using std::string;
using std::vector;

static void write_file(const char *path, string const &content) {
    MFILE file;
    CHECK(file.open(path, "wb") == 0 && file.write(content.data(), 1, content.size()) == content.size());
    CHECK(file.flush() == 0 && file.close() == 0);
}

static string changed(void (*change)(string &), string text) {
    change(text);
    return text;
}

static void check_task() {
    BOINC_OPTIONS options;
    APP_INIT_DATA data;
    string name;
    double seconds = -1;
    write_file(
        "init_data.xml",
        "<app_init_data><wu_name>w</wu_name><app_file>a</app_file><app_file>b</app_file></app_init_data>");
    write_file("link", "<soft_link>elsewhere</soft_link>");
    options_defaults(options);
    boinc_options_defaults(options);
    CHECK(boinc_init_options_general(options) == 0 && boinc_get_init_data(data) == 0);
    CHECK(data.app_files.size() == 2 && data.app_files[1] == "b" && !data.app_files.empty());
    CHECK(std::find(data.app_files.begin(), data.app_files.end(), string("b")) != data.app_files.end());
    vector<string> files = data.app_files;
    CHECK(files.size() == 2 && files[0] == "a");
    CHECK(data.host_info.coprocs.none() && data.host_info.coprocs.ndevs() == 0);
    CHECK(!data.host_info.coprocs.have_nvidia() && !data.host_info.coprocs.have_ati());
    CHECK(!data.host_info.coprocs.have_intel_gpu() && !data.host_info.coprocs.have_apple_gpu());
    CHECK(!data.host_info.coprocs.lookup_type("ATI") && !data.host_info.coprocs.proc_type_to_coproc(1));
    CHECK(!data.proxy_info.using_proxy() && data.global_prefs.cpu_scheduling_period() == 0);
    data.clear();
    data.proxy_info.clear();
    CHECK(data.app_files.empty() && data.checkpoint_period == 300);
    CHECK(boinc_wu_cpu_time(seconds) == 0 && seconds >= 0);
    CHECK(boinc_resolve_filename_s("link", name) == 0 && name == "elsewhere");
    CHECK(boinc_resolve_filename("link", name) == 0 && name == "elsewhere");
    name = "out";
    CHECK(boinc_upload_file(name) == 0 && boinc_upload_status(name) == ERR_NOT_FOUND);
    CHECK(boinc_sporadic_get_ca_state() == CA_COULD_COMPUTE);
    HOST_INFO host;
    CHECK(host.get_host_info(true) == 0 && host.get_cpu_info() == 0 && host.get_memory_info() == 0);
    CHECK(host.get_os_info() == 0 && host.get_cpu_count() == 0 && host.p_ncpus >= 1);
    host.clear_host_info();
    CHECK(host.p_ncpus == 0);
}

static void check_xml() {
    static const char text[] =
        "<?xml version=\"1.0\"?>\n<!-- <a> --><top x=\"1\" y='2'>\n"
        "<s> one &lt;&amp;&#195;&#x41; </s><e/><e></e><c><![CDATA[<&lt;>]]></c><n>0x10</n>\n"
        "<d>1.5e3</d><f>x</f><b/><b>0</b><u>18446744073709551615</u><skip><skip>1</skip></skip>"
        "<whole>a<i>b</i></whole><l>-7</l><ul>8</ul><contents> <i>x</i> </contents></top>";
    MIOFILE file;
    string s, empty = "x", empty_too = "x", cdata, copied;
    char buffer[64], attributes[64], contents[64];
    int n = 0;
    long l = 0;
    unsigned long ul = 0;
    unsigned long long u = 0;
    double d = 0, bad = 5;
    bool b = false, b_too = true;
    int seen = 0, unknown = 0;
    file.init_buf_read(text);
    XML_PARSER xp(&file);
    xp.init(&file);
    CHECK(xp.parse_start("top"));
    while (!xp.get_tag(attributes, sizeof attributes)) {
        if (xp.match_tag("/top")) {
            seen = 1;
            break;
        }
        if (xp.parse_string("s", s)) continue;
        if (xp.match_tag("e/") || xp.match_tag("e")) {
            CHECK(xp.parse_string("e", xp.match_tag("e") ? empty_too : empty));
            continue;
        }
        if (xp.parse_str("c", buffer, sizeof buffer)) {
            cdata = buffer;
            continue;
        }
        if (xp.parse_int("n", n) || xp.parse_double("d", d)) continue;
        if (xp.match_tag("b/")) {
            CHECK(xp.parse_bool("b", b));
            continue;
        }
        if (xp.parse_bool("b", b_too) || xp.parse_ulonglong("u", u)) continue;
        if (xp.parse_long("l", l) || xp.parse_ulong("ul", ul)) continue;
        if (xp.match_tag("whole")) {
            CHECK(xp.copy_element(copied) == 0);
            continue;
        }
        if (xp.match_tag("contents")) {
            CHECK(xp.element_contents("</contents>", contents, sizeof contents) == 0);
            continue;
        }
        if (xp.match_tag("f")) {
            CHECK(!xp.parse_double("f", bad) && bad == 5);
            continue;
        }
        unknown++;
        xp.skip_unexpected();
    }
    CHECK(seen && unknown == 1);
    CHECK(s == "one <&\xC3" "A" && empty.empty() && empty_too.empty() && cdata == "<&lt;>");
    CHECK(n == 16 && d == 1500 && b && !b_too && u == 18446744073709551615ull && l == -7 && ul == 8);
    CHECK(copied == "<whole>a<i>b</i></whole>" && !strcmp(contents, "<i>x</i>"));

    MIOFILE tags;
    bool is_tag = false;
    tags.init_buf_read("<a  b=\"c\" d=\"e\" />tail<");
    XML_PARSER other(&tags);
    CHECK(!other.get(buffer, sizeof buffer, is_tag, attributes, sizeof attributes) && is_tag);
    CHECK(!strcmp(buffer, "a/") && !strcmp(attributes, "b=\"c\" d=\"e\""));
    CHECK(other.get_aux(buffer, 3, nullptr, 0) == XML_PARSE_OVERFLOW);
    CHECK(other.get_tag() && tags.eof());

    string value;
    char line[] = "<skip>";
    CHECK(parse_int("<a>0x11</a>", "<a>", n) && n == 17);
    CHECK(parse_double("<a>2.5</a>", "<a>", d) && d == 2.5 && !parse_double("<a>inf</a>", "<a>", d));
    CHECK(parse_bool("<a/>", "a", b) && b && parse_bool("<a>0</a>", "a", b) && !b);
    CHECK(parse_str("<a> x&gt; </a>", "<a>", value) && value == "x>");
    CHECK(parse_str("<a>long</a>", "<a>", buffer, 3) && !strcmp(buffer, "lo"));
    CHECK(match_tag("<a>", "<a>") && match_tag(string("<a>"), "<a>") && boinc_strtoull("12", nullptr, 10) == 12);
    parse_attr("<a b=\"c\">", "b=", buffer, sizeof buffer);
    CHECK(!strcmp(buffer, "c"));
    xml_escape("<a>&\xC3]]>\x01\n", buffer, sizeof buffer);
    CHECK(!strcmp(buffer, "&lt;a>&amp;&#195;]]&gt;&#10;"));
    xml_escape("abc<", buffer, 6);
    CHECK(!strcmp(buffer, "abc"));
    non_ascii_escape("<\xC3>", buffer, sizeof buffer);
    CHECK(!strcmp(buffer, "<&#195;>"));
    strcpy(buffer, "&lt;&apos;&quot;&bogus;&#300;&#;&");
    xml_unescape(buffer);
    CHECK(!strcmp(buffer, "<'\"&bogus;&#300;&#;&"));
    strcpy(buffer, "a<x>old</x>b");
    replace_element_contents(buffer, "<x>", "</x>", "newer");
    CHECK(!strcmp(buffer, "a<x>newer</x>b"));
    CHECK(remove_element(buffer, "<x>", "</x>") && !strcmp(buffer, "ab"));
    CHECK(str_replace(buffer, "a", "xyz") && !strcmp(buffer, "xyzb") && !str_replace(buffer, "q", ""));
    char lines[] = "one\ntwo", *rest = lines;
    CHECK(sgets(buffer, sizeof buffer, rest) && !strcmp(buffer, "one") && !sgets(buffer, 9, rest));
    char *text_of_malloc = strdup("a");
    CHECK(strcatdup(text_of_malloc, line) == 0 && !strcmp(text_of_malloc, "a<skip>"));
    free(text_of_malloc);
    MIOFILE skipped;
    skipped.init_buf_read("1\n</skip>\n<next>\n");
    CHECK(skip_unrecognized(line, skipped) == 0 && skipped.fgets(buffer, sizeof buffer));
    CHECK(!strcmp(buffer, "<next>\n") && !skipped.fgets(buffer, sizeof buffer));
}

static int print(FILE *file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = boinc::vfprintf(file, format, arguments);
    va_end(arguments);
    return length;
}

static void check_streams() {
    char buffer[64], *text;
    string content;
    int length;
    write_file("elements", "<a>1</a><b>2</b><c>3</c><d>4</d>tail");
    FILE *in = boinc::fopen("elements", "rb"), *out = boinc::fopen("copy", "wb");
    CHECK(in && out && copy_element_contents(in, "</a>", content) == 0 && content == "<a>1");
    CHECK(copy_element_contents(in, "</b>", buffer, sizeof buffer) == 0 && !strcmp(buffer, "<b>2"));
    CHECK(dup_element_contents(in, "</c>", &text) == 0 && !strcmp(text, "<c>3"));
    free(text);
    CHECK(dup_element(in, "d", &text) == 0 && !strcmp(text, "<d>\n<d>4</d>"));
    free(text);
    CHECK(copy_stream(in, out) == 0 && boinc::fclose(in) == 0 && boinc::fclose(out) == 0);
    CHECK(read_file_string("copy", content) == 0 && content == "tail");
    MIOFILE to_file, to_memory, to_buffer, from_buffer;
    MFILE memory;
    out = boinc::fopen("copy", "w");
    to_file.init_file(out);
    CHECK(out && to_file.printf("%d", 12) == 2 && boinc::fclose(out) == 0);
    to_memory.init_mfile(&memory);
    CHECK(to_memory.printf("%s", "abc") == 3 && memory.puts("d") == 0 && memory._putchar('e') == 'e');
    CHECK(memory.printf("%c", 'f') == 1);
    memory.get_buf(text, length);
    CHECK(length == 6 && !strcmp(text, "abcdef"));
    free(text);
    to_buffer.init_buf_write(buffer, 5);
    to_buffer.printf("abc");
    to_buffer.printf("def");
    CHECK(!strcmp(buffer, "abcd"));
    from_buffer.init_buf_read("x</e>");
    CHECK(from_buffer._getc() == 'x' && from_buffer._ungetc('x') == 'x');
    CHECK(copy_element_contents(from_buffer, "</e>", buffer, 2) == 0 && !strcmp(buffer, "x"));
    from_buffer.init_buf_read("long</e>");
    CHECK(copy_element_contents(from_buffer, "</e>", buffer, 2) == ERR_BUFFER_OVERFLOW);
    CHECK(memory.tell() == -1 && memory.open("copy", "ab") == 0 && memory.tell() >= 0);
    in = boinc::fdopen(boinc::fileno(stdin), "r");
    CHECK(in == nullptr || boinc::feof(in) == 0);
    out = boinc::fopen("stdio", "w+");
    CHECK(out && boinc::fprintf(out, "%s", "ab") == 2 && boinc::fputs("c", out) >= 0);
    CHECK(print(out, "%s", "") == 0 && boinc::fputc('d', out) == 'd' && boinc::fflush(out) == 0 && boinc::ftell(out) == 4);
    CHECK(boinc::fwrite("\n", 1, 1, out) == 1 && boinc::fseek(out, 0, SEEK_SET) == 0);
    CHECK(boinc::fgetc(out) == 'a' && boinc::ungetc('a', out) == 'a');
    CHECK(boinc::fread(buffer, 1, 1, out) == 1 && boinc::fgets(buffer, sizeof buffer, out));
    boinc::perror("this is no failure");
    CHECK(!strcmp(buffer, "bcd\n") && boinc::ferror(out) == 0 && boinc::fclose(out) == 0);
}

static void check_files() {
    double size = 0, more = 0;
    string name;
    char *content, text[64];
    boinc_mkdir("t");
    boinc_mkdir("t/u");
    write_file("t/one", "12345");
    write_file("t/u/two", "123");
    CHECK(file_size("t/one", size) == 0 && size == 5 && file_size_alloc("t/one", size) == 0);
    CHECK(dir_size("t", size) == 0 && size == 8 && dir_size("t", size, false) == 0 && size == 5);
    CHECK(boincvm_dir_size("t", size, true, file_size) == 0 && size == 8);
    CHECK(dir_size_alloc("t", size) == 0 && dir_size("none", size) == ERR_OPENDIR);
    CHECK(get_filesystem_info(size, more) == 0 && size >= more && more > 0);
    CHECK(is_path_absolute("/a") && !is_path_absolute("a"));
    CHECK(read_file_string("t/one", name, 2, true) == 0 && name == "45");
    CHECK(read_file_string("t/one", name, 2) == 0 && name == "12");
    CHECK(read_file_malloc("t/one", content) == 0 && !strcmp(content, "12345"));
    free(content);
    CHECK(read_file_malloc("none", content) == ERR_FOPEN);
    DIRREF directory = dir_open("t/u");
    CHECK(dir_scan(name, directory) == 0 && name == "two" && dir_scan(name, directory) == ERR_NOT_FOUND);
    dir_close(directory);
    directory = dir_open("t/u");
    CHECK(dir_scan(text, directory, 2) == ERR_BUFFER_OVERFLOW);
    dir_close(directory);
    DirScanner scanner("t/u");
    CHECK(scanner.scan(name) && !scanner.scan(name) && !is_dir_empty("t"));
    FILE_LOCK lock;
    CHECK(lock.lock("lock") == 0 && lock.locked && is_file("lock") && lock.unlock("lock") == 0);
    CHECK(!is_file("lock") && lock.lock("no/such") == ERR_OPEN);
    CHECK(clean_out_dir("t") == 0 && is_dir_empty("t") && clean_out_dir("none") == ERR_OPENDIR);
}

static void check_texts() {
    char text[64] = "  'A  b' ", upper[] = "ABc", one[] = "";
    string name;
    vector<string> pieces = split("a\nb", '\n'), unique;
    strip_whitespace(text);
    CHECK(!strcmp(text, "'A  b'"));
    collapse_whitespace(text);
    CHECK(!strcmp(text, "'A b'"));
    strip_quotes(text);
    downcase_string(text);
    CHECK(!strcmp(text, "a b") && empty(one) && !empty(text));
    downcase_string(upper);
    CHECK(!strcmp(upper, "abc") && changed(downcase_string, "ABC") == "abc");
    CHECK(changed(strip_whitespace, " \t\n") == "" && changed(strip_quotes, "\"a\"") == "a");
    CHECK(changed(collapse_whitespace, "a  b \t c") == "a b c");
    CHECK(changed([](string &s) { boincvm_strip(s, "x"); }, "xaxbx") == "axb");
    CHECK(starts_with("abc", "ab") && starts_with(string("abc"), string("ab")));
    CHECK(ends_with("abc", "bc") && ends_with(string("abc"), string("bc")) && !ends_with("c", "bc"));
    CHECK(pieces.size() == 2 && pieces[0] == "a\n" && pieces[1] == "b\n");
    CHECK(!strcmp(time_to_string(0), "---"));
    CHECK(!strcmp(time_to_string(86400, true), "02-Jan-1970 00:00:00 UTC"));
    CHECK(!strcmp(precision_time_to_string(1.25, true), "1970-01-01 00:00:01.2500 UTC"));
    CHECK(!strcmp(boincvm_time(0, true, "%Y", false), "1970 UTC"));
    CHECK(timediff_format(3725) == "01:02:05" && timediff_format(2 * 86400) == "2 days 00:00:00");
    CHECK(flops_to_string(2.5e9) == "2.50 GFLOPS");
    mysql_timestamp(1e9, text);
    CHECK(strlen(text) == 14 && !strncmp(text, "200109", 6));
    char *ended = lf_terminate(strdup("a"));
    CHECK(!strcmp(ended, "a\n"));
    free(ended);
    CHECK(is_valid_filename("a/b") && !is_valid_filename("../a") && !is_valid_filename("/a"));
    CHECK(!is_valid_filename("a\n"));
    CHECK(path_to_filename("a/b", name) == 0 && name == "b" && path_to_filename("", name) == -1);
    CHECK(path_to_filename("a/", name) == -2);
    char *copied;
    CHECK(path_to_filename("a/b", copied) == 0 && !strcmp(copied, "b"));
    delete[] copied;
    push_unique("a", unique);
    push_unique("a", unique);
    CHECK(unique.size() == 1 && std::min(1, 2) == 1 && std::max(1, 2) == 2);
    char cut[4];
    boincvm_copy_out("ab&lt;", cut, sizeof cut);
    CHECK(!strcmp(cut, "ab"));
    double number = 0, sum = 0, squares = 0;
    int whole = 0;
    for (int i = 0; i < 20000; i++) {
        number = rand_normal();
        sum += number;
        squares += number * number;
    }
    CHECK(std::fabs(sum / 20000) < 0.1 && std::fabs(squares / 20000 - 1) < 0.1);
    CHECK(boincvm_number("1.5", true, number) && number == 1.5 && !boincvm_number("1.5x", true, number));
    CHECK(boincvm_integer("7", true, strtol, whole) && whole == 7);
}

static void check_urls() {
    PARSED_URL parsed;
    char url[64] = "HTTP.Example.org//a", out[64], small[5];
    parse_url("https://me:secret@host.org:81/dir/file", parsed);
    CHECK(parsed.protocol == URL_PROTOCOL_HTTPS && !strcmp(parsed.host, "host.org"));
    CHECK(!strcmp(parsed.user, "me") && !strcmp(parsed.passwd, "secret") && parsed.port == 81);
    CHECK(!strcmp(parsed.file, "dir/file"));
    parse_url("https://host", parsed);
    CHECK(parsed.port == 443 && !strcmp(parsed.file, "") && !strcmp(parsed.user, ""));
    CHECK(changed(escape_url, "a b/\xC3") == "a%20b%2F%C3");
    CHECK(changed(unescape_url, "a%20b%2F%C3%") == "a b/\xC3%");
    escape_url("ab/", small, sizeof small);
    CHECK(!strcmp(small, "ab"));
    strcpy(out, "%41");
    unescape_url(out, sizeof out);
    CHECK(!strcmp(out, "A"));
    canonicalize_master_url(url, sizeof url);
    CHECK(!strcmp(url, "http://http.example.org/a/") && valid_master_url(url));
    CHECK(changed(canonicalize_master_url, "https://A.b") == "https://a.b/");
    strcpy(url, "http://host/");
    CHECK(!valid_master_url(url) && is_https("https://x") && !is_https(url));
    CHECK(urls_match("http://x/", "https://x/") && is_https_transition("http://x/", "https://x/"));
    strcpy(url, "http://a.b/c d/");
    escape_url_readable(url, out);
    CHECK(!strcmp(out, "a.b_c_d_"));
    escape_project_url(url, out);
    CHECK(!strcmp(out, "a.b_c_d"));
}

static void check_processes() {
    char *const words[] = {const_cast<char *>("sh"), const_cast<char *>("-c"),
                           const_cast<char *>("sleep 1000 & wait"), nullptr};
    vector<int> ids, others;
    vector<string> lines;
    PROC_MAP processes;
    PROCINFO total, process;
    int pid, status;
    double seconds = -1, start = dtime();
    CHECK(boinc_calling_thread_cpu_time(seconds) == 0 && seconds >= 0);
    CHECK(run_command("echo a; echo b", lines) == 0 && lines.size() == 2 && lines[1] == "b\n");
    CHECK(run_command("exit 3", lines) == -1);
    CHECK(run_program(nullptr, "sh", 3, words, pid) == 0);
    while (ids.size() < 2 && dtime() < start + 50) {
        get_descendants(getpid(), ids);
        boinc_sleep(0.02);
    }
    CHECK(ids.size() == 2 && in_vector(pid, ids) && any_process_exists(ids));
    CHECK(procinfo_setup(processes) == 0 && processes.count(getpid()) == 1);
    total.id = pid;
    procinfo_app(total, &others, processes, nullptr);
    CHECK(total.rss > 0 && processes[pid].is_boinc_app && !strcmp(processes[pid].command, "sh"));
    procinfo_non_boinc(total, processes);
    CHECK(total.rss > 0 && process_tree_cpu_time(getpid()) >= 0 && total_cpu_time() > 0);
    boincvm_add_tree(processes, getpid(), total);
    CHECK(boincvm_read_process(getpid(), process) && process.id == getpid() && process.rss > 0);
    PROC_MAP two;
    two[1] = PROCINFO();
    two[2].parentid = 1;
    find_children(two);
    CHECK(two[1].children.size() == 1);
    suspend_or_resume_process(pid, false);
    suspend_or_resume_process(pid, true);
    suspend_or_resume_descendants(false);
    suspend_or_resume_descendants(true);
    CHECK(get_exit_status(pid, status, 0) == ERR_NOT_FOUND);
    kill_descendants(pid);
    kill_all(ids);
    for (int id : ids) {
        kill_process(id);
    }
    CHECK(process_priority_value(PROCESS_PRIORITY_HIGHEST) == -15 && process_priority_value(0) == 0);
}

static void check_archives() {
    ZipFileList list;
    string content;
    char digest[MD5_LEN];
    double size;
    boinc_mkdir("z");
    write_file("z/a.x1.nc", "first");
    write_file("z/b.x1.nc", "second");
    write_file("z/c.other", "third");
    CHECK(boinc_filelist("z", "x1|.nc", &list) && list.size() == 2 && list[0] == "z/b.x1.nc");
    CHECK(boinc_filelist("z/", "*", &list, SORT_NAME | SORT_ASCENDING) && list.size() == 3);
    CHECK(list[0] == "z/a.x1.nc" && boinc_filelist("z", ".nc|x1", &list) && list.empty());
    CHECK(boinc_filelist("z", "c.", &list, SORT_TIME, false) && !boinc_filelist("z", "", nullptr));
    CHECK(boinc_filelist("z", "", &list, SORT_TIME | SORT_ASCENDING) && list.size() == 3);
    CHECK(boinc_zip(ZIP_IT, string("z.zip"), &list) == 0);
    CHECK(boinc_zip(UNZIP_IT, string("z.zip"), string("out")) == 0 && is_file("out/c.other"));
    CHECK(boinc_zip(UNZIP_IT, string("z.zip"), static_cast<ZipFileList *>(nullptr)) == 0);
    CHECK(is_file("a.x1.nc"));
    char archive[] = "z.zip", file[] = "b.x1.nc", none[] = "none";
    CHECK(boinc_UnzipToMemory(archive, file, content) == 0 && content == "second");
    CHECK(boinc_UnzipToMemory(archive, none, content) == 2);
    CHECK(md5_file("z/a.x1.nc", digest, size) == 0 && size == 5);
    CHECK(md5_string("first") == digest && md5_block(nullptr, 0, digest) == 0);
    CHECK(md5_string(nullptr, 0) == "d41d8cd98f00b204e9800998ecf8427e");
    COLOR color;
    HLStoRGB(1.0 / 3, 0.5, 1, color);
    CHECK(color.g > 0.99 && color.r < 0.01 && color.b < 0.01 && color.a > 0.99);
}

/* Anything at all is read to its end, within its bounds. */
static void check_any_text() {
    static const char *const pieces[] = {
        "<", "a", ">", "<a>", "</a>", "<a/>", "<a b='c'>", "<b>", "</b>", "<?xml?>", "<!--", "-->",
        "<![CDATA[", "]]>", "&", "&lt;", "&#", "&#195;", "&#x", ";", "/", "\"", "0x", "1", "%", "%4",
        "@", ":", "://", " ", "\n", "\xC3"};
    srand(7);
    for (int round = 0; round < 3000; round++) {
        string text, value;
        char small[16], tiny[4];
        int number;
        double real;
        bool flag;
        PARSED_URL url;
        for (int count = rand() % 14; count > 0; count--) {
            text += pieces[static_cast<size_t>(rand()) % (sizeof pieces / sizeof pieces[0])];
        }
        MIOFILE file;
        file.init_buf_read(text.c_str());
        XML_PARSER xp(&file);
        xp.parse_start("a");
        while (!xp.get_tag(tiny, sizeof tiny)) {
            if (xp.parse_str("a", small, sizeof small) || xp.parse_string("b", value)) continue;
            if (xp.parse_int("a", number) || xp.parse_double("a", real)) continue;
            if (xp.parse_bool("a", flag)) continue;
            if (round % 3 == 0) xp.skip_unexpected();
            if (round % 3 == 1) xp.copy_element(value);
        }
        xml_escape(text.c_str(), small, sizeof small);
        non_ascii_escape(text.c_str(), small, sizeof small);
        parse_attr(text.c_str(), "b", small, sizeof small);
        parse_str(text.c_str(), "<a>", small, sizeof small);
        parse_bool(text.c_str(), "a", flag);
        parse_url(text.c_str(), url);
        escape_url(text.c_str(), small, sizeof small);
        value = text;
        escape_url(value);
        unescape_url(value);
        CHECK(value == text);
        canonicalize_master_url(value);
        xml_unescape(text);
        strip_quotes(text);
    }
}

int main() {
    boinc_init();
    check_any_text();
    check_task();
    check_xml();
    check_streams();
    check_files();
    check_texts();
    check_urls();
    check_processes();
    check_archives();
    boinc_finish(failures);
}
