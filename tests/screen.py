"""What a terminal shows of a program's output: enough of one for bars that redraw themselves."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

_PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]|\x1b")


def shown(command: list[str], columns: int, **options: object) -> tuple[int, list[str]]:
    """Exit status of ``command`` on a terminal of that width, and the lines on its screen at the end."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, **options)  # type: ignore[call-overload]
    os.close(there)
    output = b""
    while True:
        try:
            piece = os.read(here, 4096)
        except OSError:  # the program has closed its side
            break
        if not piece:
            break
        output += piece
    os.close(here)
    return process.wait(), screen(output.decode(), columns)


def screen(output: str, columns: int) -> list[str]:
    """The lines that ``output`` leaves behind, whatever has scrolled away included."""
    lines: list[str] = [""]
    row = column = 0
    for match in _PIECE.finditer(output):
        text, (number, command) = match[0], match.groups()
        if text == "\r":
            column = 0
        elif text == "\n":
            row += 1
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif command is None and text != "\x1b":
            if column == columns:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + 1 :]
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]
