/* The bytes of calibration_text.txt, as calibration_text.cc wants them. */
    .section .rodata
    .globl quire_calibration_text
    .globl quire_calibration_text_end
quire_calibration_text:
    .incbin "quantize/calibration_text.txt"
quire_calibration_text_end:
    .byte 0
    .section .note.GNU-stack,"",%progbits
