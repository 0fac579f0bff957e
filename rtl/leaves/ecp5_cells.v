// Behaviour of the ECP5 cells that the leaves use, for simulation, as far as they use them.
// Written from the cells' documentation and from the models that synthesis uses; its fidelity to silicon is unproven.

// Two positions of a carry chain: a four-input table and a full adder each.
module CCU2C #(
    parameter [15:0] INIT0 = 0,
    parameter [15:0] INIT1 = 0,
    parameter INJECT1_0 = "NO",
    parameter INJECT1_1 = "NO"
) (
    input CIN,
    input A0, B0, C0, D0, A1, B1, C1, D1,
    output S0, S1, COUT
);
    wire propagates0 = INIT0[{D0, C0, B0, A0}];
    wire propagates1 = INIT1[{D1, C1, B1, A1}];
    wire carry0 = propagates0 ? CIN : INIT0[{2'b00, B0, A0}];
    assign S0 = propagates0 ^ CIN;
    assign S1 = propagates1 ^ carry0;
    assign COUT = propagates1 ? carry0 : INIT1[{2'b00, B1, A1}];
endmodule

// Block RAM of 18 kilobits with port A writing, port B reading, and the output registers in use.
// A word that is read while it is written comes out inverted, so that whoever relies on it is found out.
module DP16KD #(
    parameter DATA_WIDTH_A = 36,
    parameter DATA_WIDTH_B = 36,
    parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC",
    parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL",
    parameter CSDECODE_A = "0b000",
    parameter CSDECODE_B = "0b000",
    parameter GSR = "DISABLED"
) (
    input CLKA, CEA, WEA, OCEA, RSTA, CSA0, CSA1, CSA2,
    input CLKB, CEB, WEB, OCEB, RSTB, CSB0, CSB1, CSB2,
    input ADA0, ADA1, ADA2, ADA3, ADA4, ADA5, ADA6, ADA7, ADA8, ADA9, ADA10, ADA11, ADA12, ADA13,
    input ADB0, ADB1, ADB2, ADB3, ADB4, ADB5, ADB6, ADB7, ADB8, ADB9, ADB10, ADB11, ADB12, ADB13,
    input DIA0, DIA1, DIA2, DIA3, DIA4, DIA5, DIA6, DIA7, DIA8,
    input DIA9, DIA10, DIA11, DIA12, DIA13, DIA14, DIA15, DIA16, DIA17,
    input DIB0, DIB1, DIB2, DIB3, DIB4, DIB5, DIB6, DIB7, DIB8,
    input DIB9, DIB10, DIB11, DIB12, DIB13, DIB14, DIB15, DIB16, DIB17,
    output DOA0, DOA1, DOA2, DOA3, DOA4, DOA5, DOA6, DOA7, DOA8,
    output DOA9, DOA10, DOA11, DOA12, DOA13, DOA14, DOA15, DOA16, DOA17,
    output DOB0, DOB1, DOB2, DOB3, DOB4, DOB5, DOB6, DOB7, DOB8,
    output DOB9, DOB10, DOB11, DOB12, DOB13, DOB14, DOB15, DOB16, DOB17
);
    localparam LOW = DATA_WIDTH_A == 36 ? 5 : DATA_WIDTH_A == 18 ? 4 : DATA_WIDTH_A == 9 ? 3
        : DATA_WIDTH_A == 4 ? 2 : DATA_WIDTH_A == 2 ? 1 : 0;
    wire [13:0] address_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] address_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [35:0] written = {
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0
    };
    // In words of 18 bits and more the lowest address bits are byte enables.
    wire [3:0] enables = DATA_WIDTH_A == 36 ? address_a[3:0] : DATA_WIDTH_A == 18 ? {2'b00, address_a[1:0]} : 4'b0001;
    wire [35:0] mask = {{9{enables[3]}}, {9{enables[2]}}, {9{enables[1]}}, {9{enables[0]}}};
    wire [13:0] word_a = address_a >> LOW;
    wire [13:0] word_b = address_b >> LOW;

    reg [35:0] store [0:(16384 >> LOW) - 1];
    reg [35:0] latch, shown;
    integer at;
    initial begin
`ifndef FORMAL
        // A proof begins with any contents.
        for (at = 0; at < (16384 >> LOW); at = at + 1) store[at] = 0;
`endif
        latch = 0;
        shown = 0;
        if (DATA_WIDTH_A != DATA_WIDTH_B || REGMODE_A != "OUTREG" || REGMODE_B != "OUTREG") begin
            $display("DP16KD: this model has equal widths and output registers only");
            $finish;
        end
    end
    wire writes = CEA && WEA && {CSA2, CSA1, CSA0} == 0;
    wire reads = CEB && !WEB && {CSB2, CSB1, CSB0} == 0;
    always @(posedge CLKA) begin
        if (writes) store[word_a] <= (written & mask) | (store[word_a] & ~mask);
        if (reads) latch <= writes && word_a == word_b ? ~store[word_b] : store[word_b];
        if (OCEA && OCEB) shown <= latch;
    end
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0}
        = DATA_WIDTH_A == 36 ? shown[35:18] : shown[17:0];
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0}
        = shown[17:0];
endmodule

// Multiplier of 18 x 18 bits with registers on one clock: at the inputs, at the output and, if in use, between them.
// The operands come from the fabric, and whether they are signed never changes; cascades and resets are not modelled.
module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE",
    parameter REG_INPUTA_CE = "CE0",
    parameter REG_INPUTA_RST = "RST0",
    parameter REG_INPUTB_CLK = "NONE",
    parameter REG_INPUTB_CE = "CE0",
    parameter REG_INPUTB_RST = "RST0",
    parameter REG_PIPELINE_CLK = "NONE",
    parameter REG_PIPELINE_CE = "CE0",
    parameter REG_PIPELINE_RST = "RST0",
    parameter REG_OUTPUT_CLK = "NONE",
    parameter REG_OUTPUT_CE = "CE0",
    parameter REG_OUTPUT_RST = "RST0",
    parameter SOURCEB_MODE = "B_SHIFT",
    parameter MULT_BYPASS = "DISABLED",
    parameter CAS_MATCH_REG = "FALSE",
    parameter RESETMODE = "SYNC",
    parameter GSR = "ENABLED"
) (
    input A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17,
    input B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17,
    input C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15, C16, C17,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK0, CLK1, CLK2, CLK3, CE0, CE1, CE2, CE3, RST0, RST1, RST2, RST3,
    output P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12, P13, P14, P15, P16, P17,
    output P18, P19, P20, P21, P22, P23, P24, P25, P26, P27, P28, P29, P30, P31, P32, P33, P34, P35
);
    reg [17:0] a, b;
    reg [35:0] multiplied, product;
    wire signed [35:0] wide_a = {{18{SIGNEDA & a[17]}}, a};
    wire signed [35:0] wide_b = {{18{SIGNEDB & b[17]}}, b};
    wire enable_a = REG_INPUTA_CE == "CE1" ? CE1 : CE0;
    wire enable_b = REG_INPUTB_CE == "CE1" ? CE1 : CE0;
    wire enable_pipeline = REG_PIPELINE_CE == "CE1" ? CE1 : CE0;
    wire enable_output = REG_OUTPUT_CE == "CE1" ? CE1 : CE0;
    initial begin
        a = 0;
        b = 0;
        multiplied = 0;
        product = 0;
        if (REG_INPUTA_CLK != "CLK0" || REG_INPUTB_CLK != "CLK0" || REG_OUTPUT_CLK != "CLK0"
                || (REG_PIPELINE_CLK != "CLK0" && REG_PIPELINE_CLK != "NONE")
                || SOURCEB_MODE != "B_SHIFT" || MULT_BYPASS != "DISABLED") begin
            $display("MULT18X18D: this model has registers on CLK0 and operands from the fabric only");
            $finish;
        end
    end
    always @(posedge CLK0) begin
        if (enable_a) a <= {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
        if (enable_b) b <= {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
        if (enable_pipeline) multiplied <= wide_a * wide_b;
        if (enable_output) product <= REG_PIPELINE_CLK == "NONE" ? wide_a * wide_b : multiplied;
    end
    wire beyond = SOURCEA || SOURCEB || RST0;
`ifdef FORMAL
    always @* assert (!beyond);
`else
    always @(posedge CLK0) if (beyond) begin
        $display("MULT18X18D: this model has no cascades and no resets");
        $finish;
    end
`endif
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15,
            P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0}
        = product;
endmodule

// Flip-flop that is always enabled, with a synchronous clear; it begins with 0.
module TRELLIS_FF #(
    parameter GSR = "DISABLED",
    parameter CEMUX = "1",
    parameter CLKMUX = "CLK",
    parameter LSRMUX = "LSR",
    parameter REGSET = "RESET",
    parameter SRMODE = "LSR_OVER_CE"
) (
    input CLK, LSR, DI,
    output reg Q
);
    initial Q = 0;
    always @(posedge CLK) Q <= DI & ~LSR;
endmodule
